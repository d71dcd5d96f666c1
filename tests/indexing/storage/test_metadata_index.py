"""The table of metadata against a loop over dicts."""

import operator

import pytest

from tp_retrieval import InputError
from tp_retrieval.indexing.search.filters import parsed
from tp_retrieval.indexing.storage.metadata_index import Kind, check_size, facts_of, typed

METADATA = [
    {"n": 1, "s": "Äpfel", "a": {"b": 2}},
    {"n": 2.5, "s": "birnen", "l": [1, "x", None]},
    {"n": -3, "s": "", "b": True},
    {"n": None, "b": False, "l": []},
    {"n": 10**30, "s": "zz äpfel", "a": {"b": 2.0, "c": {"d": "deep"}}},
    {},
]


@pytest.fixture
def store(filled):
    return filled([f"text {i}" for i in range(6)], METADATA)


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@pytest.mark.parametrize("name", ["$gt", "$gte", "$lt", "$lte", "$eq"])
@pytest.mark.parametrize("value", [-3, 1, 2.5, 3, 1e30])
def test_numbers_are_compared_as_python_s_floats(store, name, value):
    compare = getattr(operator, {"$gte": "ge", "$lte": "le"}.get(name, name[1:]))
    want = [i for i, m in enumerate(METADATA, 1) if number(m.get("n")) and compare(float(m["n"]), value)]
    assert store.metadata_index.matching(parsed({"n": {name: value}})).tolist() == want


@pytest.mark.parametrize(
    ("where", "want"),
    [
        ({"s": {"$match": "pfel"}}, [1, 5]),
        ({"s": {"$match": "äpfel"}}, [5]),
        ({"s": {"$imatch": "ÄPFEL"}}, [1, 5]),
        ({"n": {"$exists": True}}, [1, 2, 3, 4, 5]),
        ({"a.b": 2}, [1, 5]),
        ({"a.c.d": "deep"}, [5]),
        ({"n": None}, [4]),
        ({"b": True}, [3]),
        ({"n": True}, []),
        ({"l": {"$contains": "x"}}, [2]),
        ({"l": []}, [4]),
        ({"s": {"$gt": "birnen"}}, [1, 5]),
    ],
)
def test_each_comparison_reads_its_rows(store, where, want):
    assert store.metadata_index.matching(parsed(where)).tolist() == want


def test_problems_are_named_and_remade(store):
    assert list(store.metadata_index.problems()) == []
    store.database.execute("DELETE FROM facts WHERE path = 'a.b' AND seq = 5")
    (line,) = store.metadata_index.problems()
    assert "first at record 5 ('a.b')" in line
    with store.transaction():
        store.metadata_index.rebuild()
    assert list(store.metadata_index.problems()) == []
    assert store.metadata_index.matching(parsed({"a.b": 2})).tolist() == [1, 5]
    store.database.execute("INSERT INTO facts VALUES ('surplus', 2, 1, 1)")
    (line,) = store.metadata_index.problems()
    assert "23 are stored, 22 should be" in line


def test_a_deleted_row_matches_nothing(store):
    with store.transaction():
        store.delete(store.documents.seqs_of(["d1"]))
    assert store.metadata_index.matching(parsed({"a.b": 2})).tolist() == [5]
    assert store.database.execute("SELECT count(*) FROM facts WHERE seq = 1") == [(0,)]


def test_facts_are_every_path_with_kind_and_value():
    assert facts_of({"a": {"b": [1, None, [2]]}, "c": False}) == {
        ("a", Kind.OBJECT, 0),
        ("a.b", Kind.LIST, "[1, null, [2]]"),
        ("a.b", Kind.NUMBER_ELEMENT, 1),
        ("a.b", Kind.NULL_ELEMENT, 0),
        ("c", Kind.BOOLEAN, 0),
    }


def test_equal_lists_have_equal_text_and_what_json_lacks_is_refused():
    assert typed([1.0, {"a": 2.0}]) == typed((1, {"a": 2})) == (Kind.LIST, '[1, {"a": 2}]')
    for wrong in (float("nan"), {1, 2}, object()):
        with pytest.raises(InputError, match="here: expected what JSON holds"):
            typed(wrong, "here")


def test_size_counts_every_path_anew():
    check_size({"k": "x" * (2**24 - 1)}, "here")
    with pytest.raises(InputError, match="here: written out for filters"):
        check_size({"k": "x" * 2**24}, "here")
