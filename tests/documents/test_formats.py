"""Every format that is read: what is in it, and where it stands."""

from pathlib import Path

import pytest

from tests.documents.making import FACTS, PLACES, make_folder
from tests.toy import ToyEmbedder
from tp_retrieval import Index, InputError, OptionalDependencyError, index_files
from tp_retrieval.documents.formats import ReadingOptions
from tp_retrieval.documents.sources import read

FILES = Path(__file__).parents[1] / "files"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds") / "kinds"
    make_folder(folder)
    return folder


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory):
    with Index.create(tmp_path_factory.mktemp("index") / "index", ToyEmbedder()) as index:
        changes = index_files(index, [folder])
        assert changes.files == len(FACTS) >= 25
        assert changes.skipped == ()
        yield index


@pytest.mark.parametrize("name", FACTS)
def test_a_file_of_every_kind_is_found_by_what_is_in_it(index, name):
    (hit, *_) = index.search(FACTS[name], 1)
    metadata = hit.document.metadata
    assert metadata["path"] == name
    assert {key: metadata.get(key) for key in PLACES.get(name, {})} == PLACES.get(name, {})


def sections(name, options=None):
    return [*read(FILES / name, options=options).sections()]


def test_files_that_office_programs_wrote():
    pages = sections("text.pdf")
    assert [section.metadata["page"] for section in pages] == [1, 2]
    assert pages[0].text.startswith("Lorem ipsum dolor sit amet,\nconsectetur adipisici elit,")
    trails = [(section.metadata["page"], section.headings) for section in sections("toc.pdf")]
    assert trails[:4] == [(1, ("One",)), (1, ("One", "One-A")), (1, ("One", "One-B")), (1, ("One", "One-B", "One-B-I"))]
    assert trails[-1] == (2, ("Three", "Three-B"))
    (word,) = sections("word.docx")
    assert "Lorem ipsum dolor sit amet, consectetur adipiscing elit." in word.text
    slides = sections("powerpoint.pptx")
    assert [section.metadata["page"] for section in slides] == [1, 2, 3]
    assert slides[2].text == "a | b | c\nd | e | f\ng | h | i"


def test_outputs_notes_and_columns(folder):
    cells = [*read(folder / "recipes.ipynb").sections()]
    assert [cell.text for cell in cells] == ["# Bread\n\nBaking takes time.", "flour = 500", "knead the sourdough twice."]
    rain = [*read(folder / "umbrellas.pptx").sections()][1]
    assert rain.text == "Rain\n\nparasols were a royal privilege\n\nMention the monsoon."
    rows = [*read(folder / "prices.csv").sections()]
    assert [(row.text, row.metadata) for row in rows] == [
        ("spice: pepper\nprice: two\nlines", {"line": 2}),
        ("spice: saffron\nprice: 5000", {"line": 4}),
    ]
    assert [row.text for row in read(folder / "volcanoes.xlsx").sections()] == [
        "name: danube\nlength: 2850",
        "name: etna\nheight: 3357",
        "name: stromboli\nheight: 924",
    ]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a;b\n1;2\n3;4\n", ["a: 1\nb: 2", "a: 3\nb: 4"]),
        ("a|b\n1|2\n", ["a: 1\nb: 2"]),
        ('a,b\n"x, y",2\n', ["a: x, y\nb: 2"]),
        ("a,,c\n1,2,3,4\n\n,,\n", ["a: 1\ncolumn 2: 2\nc: 3\ncolumn 4: 4"]),
        ("alone\nx\ny\n", ["alone: x", "alone: y"]),
        ("", []),
    ],
)
def test_tables_of_other_shapes(tmp_path, text, rows):
    (tmp_path / "t.csv").write_text(text)
    assert [section.text for section in read(tmp_path / "t.csv").sections()] == rows


@pytest.mark.parametrize(
    ("path", "text", "want"),
    [
        ("body", '{"body": "one", "year": 1}', [("one", {"year": 1})]),
        (
            "items[].body",
            '{"items": [{"body": "one", "id": 7}, {"other": 1}, {"body": "two"}]}',
            [("one", {}), ("two", {})],
        ),
        ("[].a.b", '[{"a": {"b": "deep", "c": [1]}}]', [("deep", {"c": [1]})]),
        ("pages[].lines[].t", '{"pages": [{"lines": [{"t": "x"}]}, {"lines": [{"t": "y"}]}]}', [("x", {}), ("y", {})]),
    ],
)
def test_a_path_names_the_texts_in_json(tmp_path, path, text, want):
    for name in ("t.json", "t.jsonl") if text.startswith("{") else ("t.json",):
        (tmp_path / name).write_text(text)
        read_ = [*read(tmp_path / name, options=ReadingOptions(json_text=path)).sections()]
        numbered = "record" if name == "t.json" else "line"
        position = [i if numbered == "record" else 1 for i in range(1, len(want) + 1)]
        assert [(section.text, dict(section.metadata)) for section in read_] == [
            (body, {**metadata, numbered: number}) for (body, metadata), number in zip(want, position, strict=True)
        ]


def test_json_without_texts_is_named_with_the_remedy(tmp_path):
    (tmp_path / "package.json").write_text('{"name": "x"}')
    with pytest.raises(InputError, match=r'package\.json: no list of objects with a "text"; --json-text PATH names where'):
        [*read(tmp_path / "package.json").sections()]


def test_definitions_end_where_they_end(tmp_path):
    lines = ["import os", "", "# Above.", "@decorated", "class A:", "    x = 1", "    def f(self):", "        pass"]
    code = "\n".join([*lines, "", "    y = 2", "", "", "z = 3", ""])
    (tmp_path / "a.py").write_text(code)
    found = [*read(tmp_path / "a.py").sections()]
    assert "".join(section.text for section in found) == code
    assert [(section.line, section.headings, section.text.strip().split("\n")[0]) for section in found] == [
        (1, (), "import os"),
        (3, ("A",), "# Above."),
        (7, ("A", "f"), "def f(self):"),
        (9, ("A",), "y = 2"),
        (11, (), "z = 3"),
    ]


def test_code_with_wide_characters_keeps_its_positions(tmp_path):
    code = "ä = '日本'\n\ndef grüßen(name):\n    return 'héllo 😀'\n\ndef zweite():\n    pass\n"
    (tmp_path / "a.py").write_text(code, encoding="utf-8")
    found = [*read(tmp_path / "a.py").sections()]
    assert [section.headings for section in found] == [(), ("grüßen",), ("zweite",)]
    assert all(code[section.start : section.start + len(section.text)] == section.text for section in found)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("satellites.pdf", "pypdfium2"),
        ("trains.docx", "mammoth"),
        ("umbrellas.pptx", "pptx"),
        ("volcanoes.xlsx", "openpyxl"),
        ("whales.epub", "defusedxml.ElementTree"),
        ("xylem.py", "tree_sitter_language_pack"),
    ],
)
def test_a_missing_library_is_named_with_the_extra(folder, monkeypatch, name, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(OptionalDependencyError, match=r"is not installed\. Run: pip install 'tp-retrieval\[files\]'"):
        [*read(folder / name).sections()]
