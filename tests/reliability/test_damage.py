"""A damaged byte is noticed, or changes no answer."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.toy import SampledEmbedder, ToyEmbedder
from tp_retrieval import CorruptIndexError, Document, Index, TPRetrievalError
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.indexing.verify import verify

WORDS = ["river", "stone", "bridge", "apple", "cat", "sea", "house", "green", "red", "cloud", "night", "glass"]


def documents():
    dice = random.Random(0)
    return [
        Document(" ".join(dice.choices(WORDS, k=8)), {"n": i, "kind": dice.choice("abc"), "deep": {"x": i % 3}}, f"id{i}")
        for i in range(120)
    ]


def answers(folder):
    """Return all that a user may see: three ways of searching, filters, documents."""
    with Index.open(folder, SampledEmbedder()) as index:
        found = [
            [(hit.document, round(hit.score, 6)) for hit in index.search(query, 10, mode=mode, where=where)]
            for query in ("green river", "red apple cat")
            for mode in ("dense", "lexical", "hybrid")
            for where in (None, {"kind": "b"}, {"n": {"$gte": 60}, "deep.x": 1})
        ]
        return found, list(index), index.get(["id5", "id77"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "i"
    with Index.create(folder, SampledEmbedder()) as index:
        index.add(documents())
        index.delete(["id3", "id4"])
    assert sorted(file.name for file in folder.iterdir()) == ["index.sqlite", "index.sqlite.xxh128", "vectors-1.faiss"]
    return folder


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """An index whose snapshot holds codes beside the vectors."""
    folder = tmp_path_factory.mktemp("scanned") / "i"
    rows = [replace(document, id=f"{i}-{document.id}") for i in range(3) for document in documents()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "TRAIN_AT", 300)
        with Index.create(folder, SampledEmbedder(), kind="scan") as index:
            index.add([*rows, *documents()])
            index.delete(["id3", "id4"])
            index.wait_until_built()
            assert index.info().tuning.factory.endswith("x4fs,Refine(SQ8_direct_signed)")
    return folder


def flip(data, dice):
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << dice.randrange(8))]) + data[place + 1 :]


def swap(data, dice):
    """Two blocks change places, as a file system may do to pages."""
    size = min(512, len(data) // 4)
    one, other = sorted(dice.randrange(0, len(data) // size) * size for _ in range(2))
    if data[one : one + size] == data[other : other + size]:
        return flip(data, dice)
    middle = data[one + size : other] if other > one else b""
    return data[:one] + data[other : other + size] + middle + data[one : one + size] + data[other + size :]


MUTATIONS = {
    "flip": flip,
    "truncate": lambda data, dice: data[: dice.randrange(len(data))],
    "append": lambda data, dice: data + dice.randbytes(dice.randrange(1, 5000)),
    "swap": swap,
    "empty": lambda data, dice: b"",
    "zero": lambda data, dice: data[: (at := dice.randrange(len(data)))] + bytes(len(data[at : at + 64])) + data[at + 64 :],
}
WEIGHTS = [20, 3, 2, 4, 1, 4]


def mutated(whole, folder, dice):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    file = dice.choices(sorted(folder.iterdir()), [6, 1, 2])[0]
    if dice.random() < 0.01:
        file.unlink()
        return f"{file.name} deleted", file
    name = dice.choices(list(MUTATIONS), WEIGHTS)[0]
    before = file.read_bytes()
    after = MUTATIONS[name](before, dice)
    file.write_bytes(after)
    return f"{file.name} {name}", file if after != before else None


def answers_or_error(folder):
    try:
        return answers(folder), None
    except TPRetrievalError as error:
        return None, error


def survive(whole, tmp_path, count, seed):
    dice = random.Random(seed)
    want = answers(whole)
    noticed = same = 0
    for number in range(count):
        folder = tmp_path / "i"
        what, changed = mutated(whole, folder, dice)
        found, error = answers_or_error(folder)
        if error is not None:
            assert str(folder) in str(error), (number, what)
            assert changed is not None, (number, what, error)
            noticed += 1
        else:
            assert found == want, (number, what)
            same += 1
            if changed is not None and changed.suffix == ".faiss":
                assert verify(folder).ok, "the snapshot was made again"
    return noticed, same


def test_a_hundred_damages_are_noticed_or_change_nothing(whole, tmp_path):
    noticed, same = survive(whole, tmp_path, 100, seed=1)
    assert noticed > 50
    assert same > 10, "damage to the snapshot is healed from the rows"


def test_fifty_damages_of_an_index_that_scans_codes_are_noticed_or_change_nothing(scanned, tmp_path):
    noticed, same = survive(scanned, tmp_path, 50, seed=3)
    assert noticed > 20
    assert same > 5


@pytest.mark.slow
def test_five_hundred_damages_of_an_index_that_scans_codes(scanned, tmp_path):
    noticed, same = survive(scanned, tmp_path, 500, seed=4)
    assert noticed > 200
    assert same > 50


@pytest.mark.slow
def test_a_thousand_damages_are_noticed_or_change_nothing(whole, tmp_path):
    noticed, same = survive(whole, tmp_path, 1000, seed=2)
    assert noticed > 500
    assert same > 100


@pytest.mark.slow
def test_without_a_seal_most_damage_between_the_records_would_pass_in_silence(whole, tmp_path, monkeypatch):
    """The harness bites: with the seal taken off, it finds different answers."""
    monkeypatch.setattr("tp_retrieval.sqlite.file_checksum.FileChecksum.intact", lambda self: True)
    with pytest.raises(AssertionError):
        survive(whole, tmp_path, 400, seed=6)


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("documents", "text", r"record \d+ \(id 'id9'\) is damaged"),
        ("documents", "metadata", r"record \d+ \(id 'id9'\)"),
        ("documents", "vector", r"record \d+ \(id 'id9'\)"),
        ("map_arrays", "data", "map 0, matrix is damaged"),
        ("maps", "fitted_on", "map 0 is damaged"),
        ("meta", "value", "meta record 'dimension' is damaged"),
    ],
)
def test_damage_in_a_record_is_told_with_file_and_record(whole, tmp_path, table, column, words):
    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    damage(folder, table, column)
    with pytest.raises(CorruptIndexError, match=words) as caught, Index.open(folder, SampledEmbedder()) as index:
        index.get(["id9"])
    assert "index.sqlite" in str(caught.value)


def damage(folder, table, column):
    """Change a value behind the index's back, by the means of the index itself, so that the file is sealed again."""
    from tp_retrieval.indexing.storage.store import Store

    store = Store(folder)
    value = {"data": b"\0" * 64, "vector": b"\0" * 64, "fitted_on": 7, "value": "17", "metadata": "{}"}.get(column, "other")
    where = {"documents": "id = 'id9'", "meta": "key = 'dimension'"}.get(table, "1")
    with store.transaction():
        store.database.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value,))
    store.close(checksum=True)


@pytest.mark.parametrize("column", ["text", "metadata", "vector"])
def test_verify_names_a_damaged_document_and_repair_removes_it(whole, tmp_path, column):
    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    damage(folder, "documents", column)
    found = verify(folder)
    assert not found.ok
    assert "id 'id9'" in found.problems[0]
    assert found.left == found.problems
    repaired = verify(folder, repair=True)
    assert repaired.ok
    assert repaired.documents == 117
    with Index.open(folder, SampledEmbedder()) as index:
        assert index.get(["id9"]) == []
        index.add([document for document in documents() if document.id == "id9"])
        assert index.verify().ok
        assert {hit.document.id for hit in index.search("green", 200, mode="dense")} == {d.id for d in index}


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM facts WHERE seq = 9", "facts do not fit the metadata, first at record 9"),
        ("INSERT INTO facts VALUES ('kind', 3, 'z', 9)", "facts do not fit"),
        ("INSERT INTO fulltext(rowid, text) VALUES (9, 'more words')", "full text does not fit"),
        ("INSERT INTO fulltext(fulltext) VALUES ('delete-all')", "full text does not fit"),
    ],
)
def test_repair_makes_again_what_is_made_of_the_documents(whole, tmp_path, statement, words):
    from tp_retrieval.indexing.storage.store import Store

    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    want = answers(folder)
    store = Store(folder)
    with store.transaction():
        store.database.execute(statement)
    store.close(checksum=True)
    assert any(words in problem for problem in verify(folder).problems)
    assert verify(folder, repair=True).ok
    assert answers(folder) == want


def test_repair_takes_a_file_that_does_not_open_any_more(whole, tmp_path):
    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    want = answers(folder)
    data = (folder / "index.sqlite").read_bytes()
    (folder / "index.sqlite").write_bytes(data + bytes(4096))  # a page that nothing points to
    with pytest.raises(CorruptIndexError, match=r"verify .*--repair"):
        Index.open(folder, SampledEmbedder())
    assert "not those it was closed with" in verify(folder).problems[0]
    assert verify(folder, repair=True).ok
    assert answers(folder) == want


@pytest.mark.parametrize(("table", "column"), [("map_arrays", "data"), ("maps", "fitted_on")])
def test_repair_fits_damaged_maps_anew(whole, tmp_path, table, column):
    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    damage(folder, table, column)
    assert any("map 0" in problem for problem in verify(folder).problems)
    assert verify(folder, repair=True).ok
    with Index.open(folder, SampledEmbedder()) as index:
        assert index.info().fitted_on == len(index) == 118


def test_repair_makes_a_damaged_tree_of_ids_again(whole, tmp_path):
    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    data = (folder / "index.sqlite").read_bytes()
    places = [at for at in range(len(data)) if data.startswith(b"id50", at) and not data[at + 4 : at + 5].isalpha()]
    for at in places:  # one of them is in the tree, the others in a row and in its digest's text
        (folder / "index.sqlite").write_bytes(data[:at] + b"iX50" + data[at + 4 :])
        assert not verify(folder).ok
        verify(folder, repair=True)
        assert verify(folder).ok
        with Index.open(folder, SampledEmbedder()) as index:
            assert len(index.get(["id50"])) == (len(index) == 118), "there, or removed and named"
            index.add([Document("again", {}, "id50")])
            assert [document.id for document in index].count("id50") == 1


def test_what_can_not_be_repaired_does_not_open(whole, tmp_path):
    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    damage(folder, "meta", "value")
    for _ in range(2):
        with pytest.raises(CorruptIndexError, match=r"meta record 'dimension' is damaged"):
            Index.open(folder, SampledEmbedder())
        found = verify(folder, repair=True)
        assert (found.ok, len(found.left)) == (False, 1)
        assert "meta record 'dimension'" in found.left[0]


def test_ids_given_twice_are_deleted_once(tmp_path):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add([Document(f"text {i}", {}, str(i)) for i in range(600)])
        assert index.delete(["0", *map(str, range(1, 600)), "0"]) == 600
        assert index.verify().ok


def test_verify_checks_the_vectors_themselves(whole, tmp_path, monkeypatch):
    folder = tmp_path / "i"
    shutil.copytree(whole, folder)
    from tp_retrieval.indexing.vectors.faiss_index import FaissIndex

    real = FaissIndex.rows
    monkeypatch.setattr(FaissIndex, "rows", lambda self, seqs: real(self, seqs) + np.float32(0.1))
    assert "are not those of the rows" in verify(folder).problems[0]
