"""Labelled data as people have it, and clear words about what is wrong with it."""

import gzip
import json

import pytest

from tp_retrieval import InputError
from tp_retrieval.evaluation.datasets import read_labelled, read_retrieval, read_sts, read_unlabelled


def write_folder(folder, documents, queries, judgements, *, packed=False):
    """Write a folder in BEIR's layout."""
    folder.mkdir(exist_ok=True)
    corpus = "".join(json.dumps({"_id": i, **d}) + "\n" for i, d in documents.items())
    if packed:
        (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.encode()))
    else:
        (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": i, "text": q}) + "\n" for i, q in queries.items()))
    rows = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judgements)]
    (folder / "qrels.tsv").write_text("\n".join(rows) + "\n")
    return folder


DOCUMENTS = {"d1": {"title": "Whales", "text": "They breathe air."}, "d2": {"text": "Bread rises."}}


def test_sts_pairs_come_with_their_subsets(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text('subset\tscore\tsentence1\tsentence2\na\t4.5\tone "quoted\ttwo\n\nb\t0\tthree\tfour\n')
    pairs = read_sts(file)
    assert (pairs.name, pairs.first, pairs.second) == ("pairs", ['one "quoted', "three"], ["two", "four"])
    assert (pairs.scores, pairs.subsets) == ([4.5, 0.0], ["a", "b"])
    file.write_text("sentence2\tsentence1\tscore\ntwo\tone\t1\nfour\tthree\t2\n")
    assert (read_sts(file).first, read_sts(file).subsets) == (["one", "three"], ["all", "all"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'score'"),
        ("score\tsentence1\n1\ta\n", "no column 'sentence2'"),
        ("score\tsentence1\tsentence2\n1\ta\n", "line 2: 2 columns must be 3"),
        ("score\tsentence1\tsentence2\nx\ta\tb\n", "line 2: score must be a number, got 'x'"),
        ("score\tsentence1\tsentence2\nnan\ta\tb\n", "line 2: score must be a number"),
        ("score\tsentence1\tsentence2\n1\ta\tb\n", "1 pairs"),
    ],
)
def test_a_bad_sts_table_is_named(tmp_path, text, words):
    (tmp_path / "bad.tsv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_sts(tmp_path / "bad.tsv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_long_fields_are_no_matter(tmp_path, end):
    long = "word " * 50_000
    rows = ["subset\tscore\tsentence1\tsentence2", f"a\t1\t{long}\tb", "b\t2\tc\td"]
    (tmp_path / "pairs.tsv").write_bytes(b"\xef\xbb\xbf" + (end.join(rows) + end).encode())
    pairs = read_sts(tmp_path / "pairs.tsv")
    assert (pairs.subsets, pairs.first, pairs.second) == (["a", "b"], [long, "c"], ["b", "d"])
    (tmp_path / "labels.tsv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfx\tone\nx\ttwo\n"))
    assert read_labelled(tmp_path / "labels.tsv").labels == ["x", "x"]


def test_a_packed_file_that_is_damaged_is_named(tmp_path):
    data = bytearray(gzip.compress(json.dumps(DOCUMENTS).encode() * 50))
    for damaged in (bytes(data[:-20]), bytes([*data[:15], *(255 - b for b in data[15:40]), *data[40:]]), b"no gzip"):
        (tmp_path / "labels.tsv.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"labels\.tsv: can't be read"):
            read_labelled(tmp_path / "labels.tsv")


def test_what_would_be_lost_is_refused(tmp_path):
    def told(folder):
        with pytest.raises(InputError) as error:
            read_retrieval(folder)
        return str(error.value)

    queries = {"q1": "What breathes?"}
    folder = write_folder(tmp_path / "set", DOCUMENTS, queries, [("q1", "d1", 1)])
    (folder / "qrels.tsv").write_text("q1\td1\t1\n")
    assert "line 1: must be a header" in told(folder)
    folder = write_folder(tmp_path / "set", DOCUMENTS, queries, [("q1", "d1", 0.5)])
    assert "line 2: grade must be a whole number, got '0.5'" in told(folder)
    folder = write_folder(tmp_path / "set", DOCUMENTS, queries, [("q1", "d1", 1)])
    for name, id_ in (("corpus", "d1"), ("queries", "q1")):
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"_id": id_, "text": "again"}) + "\n")
        assert f"the _id '{id_}' is given twice" in told(folder)
        write_folder(folder, DOCUMENTS, queries, [("q1", "d1", 1)])
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "\\ud800"}\n')
    assert "line 1: text: character 0 is the lone surrogate" in told(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_a_retrieval_folder_joins_title_and_text_and_drops_what_nobody_judged(tmp_path, packed):
    judgements = [("q1", "d1", 2), ("q1", "d2", 0), ("q3", "d2", 0)]
    queries = {"q1": "What breathes?", "q2": "unjudged", "q3": "nothing relevant"}
    found = read_retrieval(write_folder(tmp_path / "set", DOCUMENTS, queries, judgements, packed=packed))
    assert found.documents == {"d1": "Whales\nThey breathe air.", "d2": "Bread rises."}
    assert found.queries == {"q1": "What breathes?"}
    assert found.grades == {"q1": {"d1": 2, "d2": 0}}
    assert found.name == "set"


def test_judgements_may_lie_where_beir_puts_them(tmp_path):
    folder = write_folder(tmp_path / "set", DOCUMENTS, {"q": "What?"}, [("q", "d1", 1)])
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    assert read_retrieval(folder).grades == {"q": {"d1": 1}}


@pytest.mark.parametrize(
    ("judgements", "words"),
    [
        ([("q", "d9", 1)], "line 2: document 'd9' is in no file"),
        ([("q9", "d1", 1)], "line 2: query 'q9' is in no file"),
        ([("q", "d1", "high")], "line 2: grade must be a number"),
        ([("q", "d1")], "line 2: 2 columns must be 3"),
        ([("q", "d1", 0)], "no query has a relevant document"),
    ],
)
def test_bad_judgements_are_named(tmp_path, judgements, words):
    folder = write_folder(tmp_path / "set", DOCUMENTS, {"q": "What?"}, judgements)
    with pytest.raises(InputError, match=words):
        read_retrieval(folder)


def test_a_number_that_is_none_in_a_field_that_nothing_reads_is_no_matter(tmp_path):
    folder = write_folder(tmp_path / "set", DOCUMENTS, {"q": "What?"}, [("q", "d1", 1)])
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "hello", "metadata": {"price": NaN}}\n')
    assert read_retrieval(folder).documents == {"d1": "hello"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "line 1: must be an object, not list"),
        ('{"_id": 3, "text": "a"}', "_id must be a string, got 3"),
    ],
)
def test_a_bad_record_is_named(tmp_path, line, words):
    folder = write_folder(tmp_path / "set", DOCUMENTS, {"q": "What?"}, [("q", "d1", 1)])
    (folder / "corpus.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=words):
        read_retrieval(folder)
    with pytest.raises(InputError, match=r"missing.corpus\.jsonl: can't be read"):
        read_retrieval(tmp_path / "missing")


def test_a_corpus_asks_for_itself_and_what_asks_is_taken_out(tmp_path):
    documents = {
        "titled": {"title": "How whales breathe", "text": "They come up to the surface and take air."},
        "plain": {"text": "Bread rises by yeast. The yeast turns sugar into carbon dioxide. It takes hours."},
        "short": {"text": "Too short. Really."},
    }
    folder = write_folder(tmp_path / "set", documents, {}, [])
    found = read_unlabelled(folder)
    assert found.queries == {"titled": "How whales breathe", "plain": "Bread rises by yeast."}
    assert found.documents["titled"] == documents["titled"]["text"]
    assert found.documents["plain"] == "The yeast turns sugar into carbon dioxide. It takes hours."
    assert found.documents["short"] == "Too short. Really."
    assert found.grades == {"titled": {"titled": 1}, "plain": {"plain": 1}}
    write_folder(folder, {"short": documents["short"]}, {}, [])
    with pytest.raises(InputError, match="to make questions of"):
        read_unlabelled(folder)


def test_labelled_texts(tmp_path):
    file = tmp_path / "train.tsv"
    file.write_text("animal\tA whale.\nfood\tBread.\n")
    assert read_labelled(file).texts == ["A whale.", "Bread."]
    assert read_labelled(file).labels == ["animal", "food"]
    file.write_text("animal A whale.\n")
    with pytest.raises(InputError, match="line 1: 1 columns must be 2"):
        read_labelled(file)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 0xff at 0\)"):
        read_labelled(file)
