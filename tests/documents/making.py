"""A folder with a file of every kind, each about another matter, made with the libraries that write such files."""

import csv
import json
import zipfile

FACTS = {
    "animals.md": "otters hold hands while sleeping",
    "bridges.markdown": "suspension bridges hang from steel cables",
    "clouds.rst": "cumulus clouds look like cotton",
    "deserts.txt": "dunes wander with the wind",
    "engines.log": "turbine overheated at startup",
    "fruit.html": "quinces are too hard to eat raw",
    "glass.xhtml": "obsidian is volcanic glass",
    "harbour.tex": "lighthouses warn of reefs",
    "islands.org": "atolls are rings of coral",
    "jewels.adoc": "rubies are red corundum",
    "kettle.yaml": "whistle: steam sings through the spout",
    "lamps.toml": 'bulb = "tungsten filaments glow white"',
    "maps.ini": "projection = mercator stretches greenland",
    "night.jsonl": "owls hear mice below snow",
    "ocean.json": "anglerfish lure prey with light",
    "prices.csv": "saffron",
    "quarry.tsv": "marble",
    "recipes.ipynb": "knead the sourdough twice",
    "satellites.pdf": "geostationary orbits keep pace with the equator",
    "trains.docx": "maglev trains float above magnets",
    "umbrellas.pptx": "parasols were a royal privilege",
    "volcanoes.xlsx": "stromboli",
    "whales.epub": "narwhals have a spiral tusk",
    "xylem.py": "def transpiration(leaf):",
    "yarn.js": "function spinWool(fleece) {",
    "zinc.go": "func Galvanize(steel string) string {",
    "apiary.rs": "fn waggle_dance(flowers: u32) -> u32 {",
    "brewery.java": "double fermentBarley(double malt) {",
    "canal.c": "int open_lock_gate(int level) {",
    "dairy.rb": "def curdle_milk(rennet)",
    "elevator.sh": "hoist_cabin() {",
    "forge.sql": "SELECT anvil FROM blacksmiths;",
    "NOTICE": "copyright holders of the gramophone",
}
"""What each file is about, in the words that it holds."""
PLACES = {
    "animals.md": {"line": 4, "headings": ["Nature", "Water"]},
    "bridges.markdown": {"line": 1},
    "clouds.rst": {"line": 1, "headings": ["Sky"]},
    "deserts.txt": {"line": 1},
    "fruit.html": {"headings": ["Orchard"]},
    "night.jsonl": {"line": 2},
    "ocean.json": {"record": 2},
    "prices.csv": {"line": 4},
    "quarry.tsv": {"line": 3},
    "recipes.ipynb": {"cell": 3, "headings": ["Bread"]},
    "satellites.pdf": {"page": 2, "headings": ["Second part"]},
    "trains.docx": {"headings": ["Transport", "Rail"]},
    "umbrellas.pptx": {"page": 2, "headings": ["Rain"]},
    "volcanoes.xlsx": {"sheet": "Mountains", "row": 3, "headings": ["Mountains"]},
    "whales.epub": {"chapter": 2, "headings": ["Sea"]},
    "xylem.py": {"line": 4, "headings": ["Plant", "transpiration"]},
    "yarn.js": {"line": 3, "headings": ["spinWool"]},
    "zinc.go": {"line": 3, "headings": ["Galvanize"]},
    "apiary.rs": {"line": 1, "headings": ["waggle_dance"]},
    "brewery.java": {"line": 1, "headings": ["Vat", "fermentBarley"]},
    "canal.c": {"line": 3, "headings": ["open_lock_gate"]},
    "dairy.rb": {"line": 1, "headings": ["Cheese", "curdle_milk"]},
    "elevator.sh": {"line": 1, "headings": ["hoist_cabin"]},
    "forge.sql": {"line": 1},
    "NOTICE": {"line": 1},
}
"""Where the chunk that holds a fact stands."""


def make_folder(folder):
    """Write a file of every kind."""
    folder.mkdir()
    texts = {
        "animals.md": "---\nauthor: me\n---\n# Nature\n## Water {#water}\n\n{}.\n",
        "clouds.rst": "Sky\n===\n\n{}.\n",
        "fruit.html": "<html><head><title>t</title></head><body><h1>Orchard</h1><p>{}</p></body></html>",
        "glass.xhtml": "<html><body><p>{}</p></body></html>",
        "night.jsonl": '{"text": "Bats sleep by day."}\n{"text": "{}", "habitat": "forest"}\n',
        "ocean.json": '[{"text": "Kelp grows fast."}, {"text": "{}"}]',
        "xylem.py": "class Plant:\n    '''A plant.'''\n\n    {}\n        return leaf\n\n\nROOT = 1\n",
        "yarn.js": "const needle = 1;\n\n{}\n  return fleece;\n}\n",
        "zinc.go": "package metal\n\n{}\n\treturn steel\n}\n",
        "apiary.rs": "/// Tells the others.\n{}\n    flowers\n}\n",
        "brewery.java": "class Vat {\n  {}\n    return malt;\n  }\n}\n",
        "canal.c": "#include <stdio.h>\n\n{}\n  return level;\n}\n",
        "dairy.rb": "class Cheese\n  {}\n    rennet\n  end\nend\n",
        "elevator.sh": "#!/bin/sh\n{}\n  echo up\n}\n",
    }
    for name, fact in FACTS.items():
        (folder / name).write_text(texts.get(name, "{}\n").replace("{}", fact), encoding="utf-8")
    _tables(folder)
    _notebook(folder / "recipes.ipynb")
    _pdf(folder / "satellites.pdf")
    _docx(folder / "trains.docx")
    _pptx(folder / "umbrellas.pptx")
    _xlsx(folder / "volcanoes.xlsx")
    _epub(folder / "whales.epub")


def _tables(folder):
    with (folder / "prices.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["spice", "price"], ["pepper", "two\nlines"], ["saffron", 5000]])
    (folder / "quarry.tsv").write_text("stone\tdepth\ngranite\t20\nmarble\t35\n")


def _notebook(file):
    cells = [
        {"cell_type": "markdown", "source": ["# Bread\n", "\n", "Baking takes time."], "metadata": {}},
        {"cell_type": "code", "source": "flour = 500", "outputs": [{"text": "secret output"}], "metadata": {}},
        {"cell_type": "markdown", "source": f"{FACTS[file.name]}.", "metadata": {}},
    ]
    file.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def _pdf(file):
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(file))
    for number, (title, text) in enumerate([("First part", "Rockets burn fuel."), ("Second part", FACTS[file.name])], 1):
        canvas.bookmarkPage(str(number))
        canvas.addOutlineEntry(title, str(number))
        canvas.drawString(72, 700, title)
        canvas.drawString(72, 680, text)
        canvas.showPage()
    canvas.save()


def _docx(file):
    from docx import Document

    document = Document()
    document.add_heading("Transport", 1)
    document.add_paragraph("By land and by water.")
    document.add_heading("Rail", 2)
    document.add_paragraph(f"{FACTS[file.name]}.")
    document.save(file)


def _pptx(file):
    from pptx import Presentation

    presentation = Presentation()
    for title, text in (("Sun", "Hats give shade."), ("Rain", FACTS[file.name])):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    slide.notes_slide.notes_text_frame.text = "Mention the monsoon."
    presentation.save(file)


def _xlsx(file):
    from openpyxl import Workbook

    book = Workbook()
    book.active.title = "Rivers"
    book.active.append(["name", "length"])
    book.active.append(["danube", 2850])
    sheet = book.create_sheet("Mountains")
    for row in (["name", "height"], ["etna", 3357], ["stromboli", 924]):
        sheet.append(row)
    book.save(file)


def _epub(file):
    chapters = {
        "one.xhtml": "<h1>Land</h1><p>Bears sleep in winter.</p>",
        "two.xhtml": f"<h1>Sea</h1><p>{FACTS[file.name]}</p>",
    }
    items = "".join(f'<item id="{name}" href="text/{name}" media-type="application/xhtml+xml"/>' for name in chapters)
    spine = "".join(f'<itemref idref="{name}"/>' for name in chapters)
    package = f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{spine}</spine></package>'
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OPS/book.opf", package)
        for name, body in chapters.items():
            archive.writestr(f"OPS/text/{name}", f"<html><body>{body}</body></html>")
