"""Values in pickles become JSON values: what pickle wrote, read without pickle, equals what Python says of the value."""

import datetime
import decimal
import pathlib
import pickle
import uuid
import zoneinfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tp_retrieval import InputError
from tp_retrieval.indexing.importers.json_values import ADMITTED, json_value
from tp_retrieval.indexing.importers.pickle_reader import read_pickle

PROTOCOLS = (2, 3, 4, 5)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
SUMMER = datetime.timezone(datetime.timedelta(hours=2))
INDIA = datetime.timezone(datetime.timedelta(hours=5, minutes=30), "IST")
NOON = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)


def read(pickled):
    return json_value(read_pickle(pickled, ADMITTED), "metadata")


EXAMPLES = [
    (NOON, NOON),
    (NOON.replace(tzinfo=datetime.UTC), NOON.replace(tzinfo=datetime.UTC)),
    (NOON.replace(tzinfo=INDIA), NOON.replace(tzinfo=INDIA)),
    (datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN), datetime.datetime(2024, 10, 27, 2, 30, tzinfo=SUMMER)),
    (datetime.date(1969, 7, 20), datetime.date(1969, 7, 20)),
    (datetime.time(23, 59, 1, fold=1), "23:59:01"),
    (datetime.time(23, 59, 1, tzinfo=INDIA), "23:59:01+05:30"),
    (datetime.timedelta(days=1, hours=2, microseconds=5), "P1DT2H0.000005S"),
    (datetime.timedelta(days=-1), "-P1D"),
    (uuid.UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
    (decimal.Decimal("3.1400"), "3.1400"),
    (pathlib.PurePosixPath("/docs/a b.md"), "/docs/a b.md"),
    (pathlib.PosixPath("docs"), "docs"),
    (pathlib.PureWindowsPath("C:/docs/a.md"), "C:\\docs\\a.md"),
    ({10, 9, 2}, [2, 9, 10]),
    (set(), []),
    (frozenset({"b", "a"}), ["a", "b"]),
    ({1, "b", None}, ["b", 1, None]),  # in the order of their JSON: quotes before digits before letters
    ({uuid.UUID(int=2), uuid.UUID(int=1)}, [str(uuid.UUID(int=1)), str(uuid.UUID(int=2))]),
    ((1, (2, [3])), [1, [2, [3]]]),
    (np.float32(0.1), 0.10000000149011612),
    (np.float16(0.5), 0.5),
    (np.int8(-3), -3),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("naïve 東京"), "naïve 東京"),
    (np.array([258], ">u2")[0], 258),
    ({"a": {"b": [datetime.date(2024, 1, 1)]}, "n": None}, {"a": {"b": [datetime.date(2024, 1, 1)]}, "n": None}),
    ([True, 2**70, -1.5, "x" * 300], [True, 2**70, -1.5, "x" * 300]),
]


NAMES = [f"{i}-{type(value).__name__}" for i, (value, _) in enumerate(EXAMPLES)]  # sets have no order of their own


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("value", "expected"), EXAMPLES, ids=NAMES)
def test_a_value_becomes_json_in_every_protocol(protocol, value, expected):
    found = read(pickle.dumps(value, protocol))
    assert (found, type(found)) == (expected, type(expected))


def plain(value):
    """What the values of the strategy below are in JSON, said by Python's own methods."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, datetime.datetime):
        return datetime.datetime.fromisoformat(value.isoformat())
    if isinstance(value, datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, (uuid.UUID, decimal.Decimal, pathlib.PurePath)) else value


zones = (
    st.none()
    | st.timezones()
    | st.builds(datetime.timezone, st.timedeltas(*(datetime.timedelta(hours=h) for h in (-9, 9))))
)
scalars = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.dates(),
        st.uuids(),
        st.decimals(),
    ),
    st.datetimes(timezones=zones, allow_imaginary=True) | st.times(),
    st.builds(pathlib.PurePosixPath, st.text("ab/.", max_size=5)),
)
values = st.recursive(
    scalars | st.sets(st.integers()) | st.frozensets(st.uuids(), max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(values, st.sampled_from(PROTOCOLS))
def test_any_nesting_equals_what_python_says(value, protocol):
    pickled = pickle.dumps([value, value], protocol)  # twice, so that the memo is read
    assert read(pickled) == plain(pickle.loads(pickled))  # noqa: S301


def test_the_second_hour_when_clocks_are_put_back():
    hour = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)
    assert read(pickle.dumps(hour, 4)).isoformat() == "2024-10-27T02:30:00+01:00"
    assert read(pickle.dumps(hour, 3)).isoformat() == "2024-10-27T02:30:00+02:00", "pickle loses it before 4"


def test_scalars_of_earlier_versions_of_numpy():
    pickled = pickle.dumps(np.float64(0.25), 2)
    assert pickled.count(b"numpy._core.multiarray") == 1
    assert read(pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")) == 0.25


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [b"", b"raw"])
def test_bytes_are_refused_with_their_key(protocol, value):
    with pytest.raises(InputError, match=r"^metadata\['pages'\]\[1\]: JSON can't hold bytes"):
        read(pickle.dumps({"pages": ["a", value]}, protocol))


def test_what_is_no_number_is_refused():
    for value, message in ((np.complex64(1), "type c8"), (np.datetime64("2024-01-01"), "type M8")):
        with pytest.raises(ValueError, match=message):
            read(pickle.dumps(value))
    with pytest.raises(InputError, match=r"metadata\['zone'\]: JSON can't hold datetime.timezone"):
        read(pickle.dumps({"zone": datetime.UTC}))


@pytest.mark.slow
def test_lists_that_double_at_each_level_are_refused():
    value = ["x"]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(InputError, match="more than 1048576 values"):
        read(pickle.dumps(value))
    assert len(read(pickle.dumps(list(range(2**20 - 1))))) == 2**20 - 1
