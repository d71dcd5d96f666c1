"""`where` against a Python evaluator that walks the metadata itself."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, InputError
from tp_retrieval.indexing.search.filters import parsed

KEYS = st.sampled_from(["a", "b", "a.b", "ü", ""])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 2**53 + 1, 2**70, -(2**63), 2**63, 1e300, 10**400]),
    st.sampled_from(["", "a", "b", "1", "true", "ab", "A", "\0", "ü"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)
PATHS = st.sampled_from(["a", "b", "a.b", "a.a", "b.a.b", "ü", "", "a.", "c"])
ORDERED = st.one_of(st.integers(-2, 2), st.sampled_from([0.5, 2**53, 2**63, "", "a", "ab"]))
LISTS = st.lists(SCALARS, max_size=3)
OPERATORS = st.deferred(
    lambda: st.dictionaries(
        st.sampled_from(
            ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$match", "$imatch", "$exists", "$not"]
        ),
        st.none(),
        min_size=1,
        max_size=2,
    ).flatmap(lambda names: st.fixed_dictionaries({name: operand(name) for name in names}))
)


def operand(name):
    if name in ("$gt", "$gte", "$lt", "$lte"):
        return ORDERED
    if name in ("$in", "$nin"):
        return st.lists(SCALARS | LISTS, max_size=3)
    if name in ("$match", "$imatch"):
        return st.sampled_from(["", "a", "B", "Ü", "tr", "\0", "1"])
    return {"$exists": st.booleans(), "$not": OPERATORS, "$contains": SCALARS}.get(name, SCALARS | LISTS)


FIELDS = st.dictionaries(PATHS, SCALARS | LISTS | OPERATORS, min_size=1, max_size=2)
WHERES = st.recursive(
    FIELDS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=4,
)


def kind(value):
    for name, types in (("bool", bool), ("number", (int, float)), ("string", str), ("list", list), ("dict", dict)):
        if isinstance(value, types):
            return name
    return "null"


def number(value):
    """Beyond 64 bits a number is the nearest float, as in SQLite."""
    if isinstance(value, float) or -(2**63) <= value < 2**63:
        return value
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def equal(one, other):
    if kind(one) != kind(other):
        return False
    if kind(one) == "list":
        return len(one) == len(other) and all(map(equal_within, one, other))
    return number(one) == number(other) if kind(one) == "number" else one == other


def equal_within(one, other):
    """Inside a list numbers are compared as they are written, without SQLite between."""
    if kind(one) == kind(other) == "number":
        return one == other
    if kind(one) == kind(other) == "dict":
        return one.keys() == other.keys() and all(equal_within(one[key], other[key]) for key in one)
    if kind(one) == kind(other) == "list":
        return len(one) == len(other) and all(map(equal_within, one, other))
    return equal(one, other)


def reached(metadata, path):
    """Every value under a dotted path; a key may hold a dot itself."""
    for key, value in metadata.items():
        if key == path:
            yield value
        if isinstance(value, dict) and path.startswith(f"{key}."):
            yield from reached(value, path[len(key) + 1 :])


def fits(values, name, wanted):
    order = {
        "$gt": lambda a, b: a > b,
        "$gte": lambda a, b: a >= b,
        "$lt": lambda a, b: a < b,
        "$lte": lambda a, b: a <= b,
    }
    if name in order:
        same = [v for v in values if kind(v) == kind(wanted)]
        return any(order[name](number(v), number(wanted)) if kind(v) == "number" else order[name](v, wanted) for v in same)
    if name == "$contains":
        return any(equal(element, wanted) for v in values if isinstance(v, list) for element in v)
    if name in ("$match", "$imatch"):
        change = str.lower if name == "$imatch" else str
        return any(change(wanted) in change(v) for v in values if isinstance(v, str))
    return {
        "$eq": lambda: any(equal(v, wanted) for v in values),
        "$ne": lambda: not fits(values, "$eq", wanted),
        "$in": lambda: any(fits(values, "$eq", one) for one in wanted),
        "$nin": lambda: not fits(values, "$in", wanted),
        "$exists": lambda: bool(values) == wanted,
        "$not": lambda: not all(fits(values, *pair) for pair in wanted.items()),
    }[name]()


def holds(where, metadata):
    for key, wanted in where.items():
        if key == "$and":
            good = all(holds(part, metadata) for part in wanted)
        elif key == "$or":
            good = any(holds(part, metadata) for part in wanted)
        elif key == "$not":
            good = not holds(wanted, metadata)
        else:
            values = list(reached(metadata, key))
            operators = wanted if isinstance(wanted, dict) else {"$eq": wanted}
            good = all(fits(values, *pair) for pair in operators.items())
        if not good:
            return False
    return True


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with Index.create(tmp_path_factory.mktemp("filters") / "i", ToyEmbedder()) as made:
        yield made


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(METADATA, min_size=1, max_size=6), st.lists(WHERES, min_size=1, max_size=5))
@example([{"a": True}, {"a": 1}, {"a": "1"}, {"a": None}, {}], [{"a": 1}, {"a": None}, {"a": {"$ne": 1}}])
@example(
    [{"a": {"b": 1}}, {"a.b": 1}, {"a": {"b": 2}, "a.b": 1}], [{"a.b": 1}, {"a.b": {"$gt": 1}}, {"a": {"$exists": True}}]
)
@example([{"a": [1, "x"]}, {"a": [1.0, "x"]}, {"a": ["x"]}], [{"a": [1, "x"]}, {"a": {"$contains": 1}}])
def test_where_keeps_what_a_python_evaluator_keeps(index, metadata, wheres):
    index.clear()
    index.add([Document("the same words", one, str(i)) for i, one in enumerate(metadata)])
    for where in wheres:
        want = {str(i) for i, one in enumerate(metadata) if holds(where, one)}
        for mode in ("dense", "lexical", "hybrid"):
            hits = index.search("words", len(metadata), where=where, mode=mode)
            assert {hit.document.id for hit in hits} == want, (mode, where)
            assert len(hits) == len(want)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"$nor": []}, r"where\.\$nor: unknown operator.*\$and, \$or, \$not"),
        ({"year": {"$near": 1}}, r"where\.year\.\$near: unknown operator; there are \$eq"),
        ({"a": {"b": 1}}, r"where\.a\.b: unknown operator.*nested key write 'a\.b'"),
        ({"a": {}}, r"where\.a: expected a value or operators"),
        ({"a": {"$gt": None}}, r"where\.a\.\$gt: only numbers, strings and dates have an order, got None"),
        ({"a": {"$lt": True}}, "have an order, got True"),
        ({"a": {"$gte": float("nan")}}, r"where\.a\.\$gte: expected what JSON holds, got nan"),
        ({"a": {"$in": "abc"}}, r"where\.a\.\$in: expected a list of values, got 'abc'"),
        ({"a": {"$exists": 1}}, r"where\.a\.\$exists: expected true or false, got 1"),
        ({"a": {"$match": 1}}, r"where\.a\.\$match: expected a string that the value has in it, got 1"),
        ({"a": {"$contains": [1]}}, r"where\.a\.\$contains: expected one plain value"),
        ({"a": {"$not": 3}}, r"where\.a\.\$not: expected operators"),
        ({"$and": []}, r"where\.\$and: expected a list of conditions, got \[\]"),
        ({"$or": [{"a": 1}, 3]}, r"where\.\$or\[1\]: expected a dict .*got int"),
        ({"a": b"x"}, r"where\.a: expected what JSON holds, got b'x'"),
        ({"a": "\ud800"}, r"where\.a: .*lone surrogate"),
        ({"a\ud800": 1}, "lone surrogate"),
        ({1: 1}, "where key: expected str, got int"),
        ("year = 1", "where: expected a dict"),
        ([], "where: expected a dict"),
        ("", "where: expected a dict"),
        ({"a": [object()]}, "JSON can't hold it"),
    ],
)
def test_a_wrong_condition_is_named_with_its_place(index, where, words):
    with pytest.raises(InputError, match=words):
        index.search("words", where=where)


@pytest.mark.parametrize("levels", [65, 100_000])
@pytest.mark.parametrize("name", ["$not", "$and"])
def test_conditions_may_not_be_nested_without_end(name, levels):
    where = {"a": 1}
    for _ in range(levels):
        where = {name: where if name == "$not" else [where]}
    with pytest.raises(InputError, match="nested more than 64 deep"):
        parsed(where)
    where = 1
    for _ in range(levels):
        where = {"$not": {"$eq": where} if where == 1 else where}
    with pytest.raises(InputError, match="nested more than 64 deep"):
        parsed({"a": where})


def test_a_condition_is_data_for_sql(index):
    index.clear()
    nasty = "x' OR 1=1; DROP TABLE documents; --"
    index.add([Document("one", {nasty: nasty}, "1"), Document("two", {"x": 1}, "2")])
    assert [hit.document.id for hit in index.search("one", where={nasty: nasty})] == ["1"]
    assert index.search("one", where={"x": nasty}) == []
    assert len(index) == 2


@pytest.mark.parametrize("keep", [0, 1, 4, 5, 6])
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_there_are_k_hits_whenever_k_fit(index, keep, mode):
    """Filters that match 0, 1, k - 1, k and k + 1 rows, none of them near the query."""
    index.clear()
    index.add([Document("near the query", {"far": False}, f"n{i}") for i in range(50)])
    index.add([Document("zebra", {"far": True}, f"f{i}") for i in range(keep)])
    hits = index.search("near the query", 5, where={"far": True}, mode=mode)
    assert [hit.document.id for hit in hits] == [f"f{i}" for i in range(min(keep, 5))]


def test_lexical_search_in_many_rows_equals_search_in_few(index):
    """More rows than fit into one statement take another way."""
    index.clear()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["red", "green", "blue", "sea", "sky"], 4)) for _ in range(1500)]
    index.add([Document(text, {"part": i % 2, "n": i}, str(i)) for i, text in enumerate(texts)])
    everything = index.search("red sea", 1500, mode="lexical")
    odd = [hit for hit in everything if hit.document.metadata["part"] == 1]
    for k in (3, 750):
        hits = index.search("red sea", k, where={"part": 1}, mode="lexical")
        assert [(hit.document.id, hit.score) for hit in hits] == [(hit.document.id, hit.score) for hit in odd[:k]]
    few = index.search("red sea", 3, where={"part": 1, "n": {"$lt": 100}}, mode="lexical")
    assert [hit.document.id for hit in few] == [h.document.id for h in odd if h.document.metadata["n"] < 100][:3]
