"""Files that are broken, or made to do harm: each is one line that names it, quickly, and nothing of it runs."""

import io
import json
import random
import resource
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.documents.making import make_folder
from tests.toy import ToyEmbedder
from tp_retrieval import Index, InputError, index_files
from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.sources import read

FILES = Path(__file__).parents[1] / "files"
LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    + "".join(f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("bcdefghij", "cdefghijk", strict=True))
    + "]>"
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
XML = {
    "trains.docx": "word/document.xml",
    "umbrellas.pptx": "ppt/slides/slide1.xml",
    "volcanoes.xlsx": "xl/worksheets/sheet1.xml",
    "whales.epub": "OPS/book.opf",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds") / "kinds"
    make_folder(folder)
    return folder


def refused(path):
    """Return the one line that says why a file can't be read."""
    with pytest.raises(InputError) as error:
        [*read(path).sections()]
    assert str(error.value).startswith(str(path))
    return str(error.value).removeprefix(f"{path}: ")


def read_or_refused(path):
    """Return the text of a file, or why it can't be read, in one line that begins with its name."""
    try:
        return " ".join(document.text for document in chunk(read(path), 32, len)), ""
    except InputError as error:
        return "", str(error)


def rewritten(archive, changes):
    """Return an archive with other entries."""
    data = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, changes.get(entry.filename, lambda text: text)(old.read(entry)))
    return data.getvalue()


def with_entity(doctype, used):
    def change(xml):
        head, _, rest = (
            xml.decode().partition("?>") if xml.startswith(b"<?xml") else ("<?xml version='1.0'", "", xml.decode())
        )
        place = rest.index(">", rest.index("<")) + 1
        return f"{head}?>{doctype}{rest[:place]}{used}{rest[place:]}".encode()

    return change


def test_encrypted_files():
    assert refused(FILES / "encrypted.pdf") == "encrypted"


def test_an_encrypted_document_of_office(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512))
    assert refused(tmp_path / "a.docx") == "encrypted, or of an Office older than 2007"
    with zipfile.ZipFile(tmp_path / "b.epub", "w") as archive:
        archive.writestr("x", "y")
    data = bytearray((tmp_path / "b.epub").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "b.epub").write_bytes(data)
    assert refused(tmp_path / "b.epub") == "encrypted"


@pytest.mark.parametrize("name", ["satellites.pdf", "recipes.ipynb", "ocean.json", *XML])
def test_truncated_files(folder, tmp_path, name):
    whole = (folder / name).read_bytes()
    reasons = []
    for part in (0, 1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 9):
        (tmp_path / name).write_bytes(whole[:part])
        _, reason = read_or_refused(tmp_path / name)
        reasons += [reason] if reason else []
    assert len(reasons) >= 4
    assert all(reason.startswith(str(tmp_path / name)) and "\n" not in reason for reason in reasons)


@pytest.mark.parametrize("name", ["satellites.pdf", "prices.csv", "recipes.ipynb", "xylem.py", "fruit.html", *XML])
def test_damaged_files_are_read_or_refused(folder, tmp_path, name):
    whole, chance = (folder / name).read_bytes(), random.Random(0)
    for _ in range(20):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / name).write_bytes(data)
        _, reason = read_or_refused(tmp_path / name)
        assert not reason or reason.startswith(str(tmp_path / name))


@pytest.mark.parametrize("name", XML)
@pytest.mark.parametrize("doctype", [LAUGHS, OUTSIDE])
def test_entities_are_neither_multiplied_nor_fetched(folder, tmp_path, name, doctype):
    used = "&k;" if doctype is LAUGHS else "&a;"
    (tmp_path / name).write_bytes(rewritten(folder / name, {XML[name]: with_entity(doctype, used)}))
    text, reason = read_or_refused(tmp_path / name)
    assert bool(text) != reason.startswith(str(tmp_path / name))
    assert len(text) < 1000
    assert Path("/etc/hostname").read_text().strip() not in text


@pytest.mark.parametrize("name", ["trains.docx", "whales.epub"])
def test_archives_that_unpack_to_too_much(folder, tmp_path, name):
    (tmp_path / name).write_bytes(rewritten(folder / name, {XML[name]: lambda xml: xml + b" " * (600 << 20)}))
    assert (tmp_path / name).stat().st_size < 1 << 21
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(tmp_path / name) == "unpacks to more than 512 MiB"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 17  # KiB; making it takes more


def test_an_archive_that_lies_about_its_size(tmp_path):
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = body.compress(b"<a>" + b" " * (300 << 20)) + body.flush()
    name, claimed = b"META-INF/container.xml", 100
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(packed), claimed, len(name), 0) + name
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(packed), claimed, len(name), 0, 0, 0, 0, 0, 0)
    data = local + packed
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry + name), len(data), 0)
    (tmp_path / "lies.epub").write_bytes(data + entry + name + end)
    assert refused(tmp_path / "lies.epub").startswith("can't be read (")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("deep.json", "[" * 200_000, "not JSON"),
        ("deep.ipynb", '{"cells": ' + "[" * 200_000, "no notebook"),
        ("odd.ipynb", '{"cells": [{"source": 1}]}', "no notebook (KeyError: 'cell_type')"),
        ("list.ipynb", "[]", "no notebook"),
        ("deep.html", "<div>" * 100_000, "its elements are nested too deeply"),
        ("wide.csv", "a,b\n1," + "x" * 200_000, "no CSV (field larger than field limit (131072))"),
    ],
)
def test_texts_that_ask_for_too_much(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    assert reason in refused(tmp_path / name)


def test_code_may_nest_as_deeply_as_it_likes(tmp_path):
    (tmp_path / "deep.js").write_text("function f() {\n" * 5_000)
    (tmp_path / "deep.py").write_text("x = " + "(" * 50_000)
    assert chunk(read(tmp_path / "deep.py"), 64, len)
    assert [*read(tmp_path / "deep.js").sections()]


def test_one_broken_file_keeps_no_other_from_being_indexed(folder, tmp_path):
    for name in (*XML, "satellites.pdf"):
        (tmp_path / "docs" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "docs" / name).write_bytes((folder / name).read_bytes()[:200])
    (tmp_path / "docs" / "half.jsonl").write_text(json.dumps({"text": "\ud800"}))
    (tmp_path / "docs" / "good.md").write_text("Fine.")
    with Index.create(tmp_path / "index", ToyEmbedder()) as index:
        changes = index_files(index, [tmp_path / "docs"])
        assert [document.text for document in index] == ["Fine."]
        assert {file.path.name for file in changes.skipped} == {*XML, "satellites.pdf", "half.jsonl"}
