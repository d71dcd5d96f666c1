"""Dates in metadata: they come back as they were, and filters compare them."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, InputError

EAST = timezone(timedelta(hours=2))
TIMES = {
    "day": date(2024, 5, 1),
    "naive": datetime(2024, 5, 1, 12, 30, 0, 123456),
    "utc": datetime(2024, 5, 1, 11, 30, tzinfo=UTC),
    "east": datetime(2024, 5, 1, 11, 30, tzinfo=EAST),
    "berlin": datetime(2024, 1, 1, 0, 0, tzinfo=ZoneInfo("Europe/Berlin")),
    "first": date(1, 1, 1),
    "last": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
}


@pytest.fixture
def index(tmp_path):
    with Index.create(tmp_path / "index", ToyEmbedder()) as index:
        index.add(
            [
                Document(f"text {name}", {"when": when, "all": [when, 1], "in": {"it": when}}, name)
                for name, when in TIMES.items()
            ]
        )
        index.add([Document("no date", {"when": "2024-05-01"}, "string"), Document("none", {}, "none")])
        yield index


def named(index, where):
    return {document.id for document in index.get(where=where)}


def moment(value):
    """The same in another way: as a difference of ordinals and seconds."""
    if not isinstance(value, datetime):
        return value.toordinal() * 86_400.0
    naive = value.replace(tzinfo=None) - (value.utcoffset() or timedelta())
    return naive.toordinal() * 86_400.0 + (naive - datetime(naive.year, naive.month, naive.day)).total_seconds()


def test_dates_come_back_as_they_were(index, tmp_path):
    for reopened in (False, True):
        for name, when in TIMES.items():
            (document,) = index.get([name])
            found = document.metadata
            assert (found["when"], type(found["when"])) == (when, type(when))
            assert found["all"] == [when, 1]
            assert found["in"] == {"it": when}
            if isinstance(when, datetime):
                assert found["when"].utcoffset() == when.utcoffset()
        if not reopened:
            index.close()
            index = Index.open(tmp_path / "index", ToyEmbedder())
    assert index.verify().problems == ()
    (hit,) = index.search("text utc", 1, ids=["utc"])
    assert hit.document.metadata["when"] == TIMES["utc"]
    index.close()


@pytest.mark.parametrize("operator", ["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"])
@pytest.mark.parametrize("bound", TIMES.values(), ids=TIMES)
def test_filters_compare_moments(index, operator, bound):
    compare = {
        "$gt": lambda a, b: a > b,
        "$gte": lambda a, b: a >= b,
        "$lt": lambda a, b: a < b,
        "$lte": lambda a, b: a <= b,
        "$eq": lambda a, b: a == b,
        "$ne": lambda a, b: a != b,
    }[operator]
    want = {name for name, when in TIMES.items() if compare(moment(when), moment(bound))}
    others = {"string", "none"} if operator == "$ne" else set()
    in_json = json.loads(json.dumps({"$date": bound.isoformat()}))
    for value in (bound, in_json):
        assert named(index, {"when": {operator: value}}) == want | others
        assert named(index, {"in.it": {operator: value}}) == want | others


def test_other_operators(index):
    day = TIMES["day"]
    assert named(index, {"when": day}) == {"day"}
    assert named(index, {"when": {"$date": "2024-05-01"}}) == {"day"}
    assert named(index, {"when": {"$in": [day, "2024-05-01"]}}) == {"day", "string"}
    assert named(index, {"when": {"$in": [{"$date": "2024-05-01"}]}}) == {"day"}
    assert named(index, {"all": {"$contains": TIMES["utc"]}}) == {"utc"}
    assert named(index, {"all": [datetime(2024, 5, 1, 9, 30), 1.0]}) == {"east"}  # the same moment
    assert named(index, {"when": {"$exists": True}}) == {*TIMES, "string"}
    index.delete(["day"])
    assert named(index, {"when": day}) == set()
    assert index.verify().problems == ()


def test_what_stands_for_dates_in_json_is_no_key_of_metadata(index):
    with pytest.raises(InputError, match=r"documents\[0\].metadata: the key '\$date' stands for a date in the index"):
        index.add([Document("x", {"a": {"$date": "2024-05-01"}})])
    with pytest.raises(InputError, match="JSON can't hold it"):
        index.add([Document("x", {"a": timedelta(1)})])


def test_an_object_that_only_looks_like_a_date_stays_one(index):
    """As an index of an earlier version may hold it."""
    from tp_retrieval.indexing.metadata_json import from_json

    for text in ('{"$date": "soon"}', '{"$date": 5}', '{"$date": "2024-05-01", "more": 1}'):
        assert from_json(f'{{"a": {text}}}')["a"] == json.loads(text)
