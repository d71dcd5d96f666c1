"""The one reader of JSON Lines."""

import gzip
from pathlib import Path

import pytest

from tp_retrieval import InputError
from tp_retrieval.documents.jsonl import Record, read_objects, read_records
from tp_retrieval.documents.sources import read_texts
from tp_retrieval.evaluation.datasets import read_unlabelled

FILE = Path("some.jsonl")


def test_blank_lines_count_and_every_line_end_is_read():
    text = '\n{"a": 1}\r\n \t\n{"a": "x\u2028y\\n"}\n{"a": 1, "a": 2}'
    assert list(read_objects(text, FILE)) == [(2, {"a": 1}), (4, {"a": "x\u2028y\n"}), (5, {"a": 2})]


def test_a_record_has_its_own_fields_and_the_rest_is_metadata():
    lines = (
        '{"id": 7, "_id": "k", "text": "a", "title": "T", "year": 1, "metadata": {"year": 2, "b": []}}\n'
        '{"_id": "x", "id": null, "text": "b", "title": null, "metadata": null}\n'
        '{"text": ""}'
    )
    records = [record for _, record in read_records(lines, FILE)]
    assert records == [Record("a", "7", "T", {"_id": "k", "year": 2, "b": []}), Record("b", "x"), Record("")]
    assert [record.titled_text for record in records] == ["T\na", "b", ""]


BROKEN = [
    ('{"text": ', "not JSON"),
    ('{"text": "a", "n": NaN}', "NaN is no JSON number"),
    ('{"text": "a", "n": -Infinity}', "-Infinity is no JSON number"),
    ("[" * 100_000, "not JSON"),
    ('["text"]', "must be an object, not list"),
    ('{"txt": "a"}', 'must have a string "text"'),
    ('{"text": 1}', 'must have a string "text"'),
    ('{"text": "a\\ud800"}', "lone surrogate"),
    ('{"text": "a", "title": "\\udfff"}', "lone surrogate"),
    ('{"text": "a", "metadata": "b"}', '"metadata" must be an object'),
]


@pytest.mark.parametrize(("line", "words"), BROKEN)
def test_a_broken_line_is_named_with_its_file(line, words):
    with pytest.raises(InputError) as error:
        list(read_records('{"text": "fine"}\n\n' + line, FILE))
    assert str(error.value).startswith("some.jsonl, line 3: ")
    assert words in str(error.value)


@pytest.mark.parametrize(("line", "words"), [case for case in BROKEN[:5] if "JSON number" not in case[1]])
def test_texts_and_labelled_data_are_read_alike(tmp_path, line, words):
    whole = '{"_id": "1", "title": "All about whales", "text": "They come up to take a breath of air."}\n'
    (tmp_path / "corpus.jsonl").write_text("\ufeff" + whole + "\n" + whole.replace('"1"', '"2"'))
    assert len(read_texts(tmp_path / "corpus.jsonl")) == len(read_unlabelled(tmp_path).documents) == 2
    (tmp_path / "corpus.jsonl").write_text(whole + "\n" + line)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "corpus.jsonl.gz").write_bytes(gzip.compress((whole + "\n" + line).encode()))
    for call in (
        lambda: read_texts(tmp_path / "corpus.jsonl"),
        lambda: read_unlabelled(tmp_path),
        lambda: read_unlabelled(tmp_path / "packed"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "corpus.jsonl, line 3: " in str(error.value)
        assert words in str(error.value)
