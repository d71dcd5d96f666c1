"""A pickle is read as data: attacks that run code in `pickle.loads` are refused in one line, and run nothing."""

import importlib
import os
import pickle
import struct
import sys
import time
from contextlib import suppress
from datetime import date

import pytest

from tp_retrieval import InputError
from tp_retrieval.indexing.importers.langchain_faiss import read_documents


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def named_on_stack(module, name):
    return text(module) + text(name) + b"\x93"


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


PATH = named("pathlib", "PosixPath")
DATE = named("datetime", "date")
FOLDER = "{folder}"
RUNNING = {  # each makes the folder when pickle loads it
    "os.mkdir": call(named("os", "mkdir"), text(FOLDER)),
    "os.system": call(named("os", "system"), text(f"mkdir {FOLDER}")),
    "builtins.eval": call(named("builtins", "eval"), text(f"__import__('os').mkdir('{FOLDER}')")),
    "eval of protocol 2": call(named("__builtin__", "eval"), text(f"__import__('os').mkdir('{FOLDER}')")),
    "a dotted name": call(named_on_stack("pathlib", "Path.mkdir"), call(PATH, text(FOLDER))),
    "a module of a module": call(named_on_stack("pathlib", "os.mkdir"), text(FOLDER)),
    "a method by getattr": call(call(named("builtins", "getattr"), call(PATH, text(FOLDER)), text("mkdir"))),
    "a chain of getattr": call(
        call(named("builtins", "getattr"), call(named("importlib", "import_module"), text("os")), text("mkdir")),
        text(FOLDER),
    ),
    "an import": call(named("importlib", "import_module"), text("planted")),
    "a module's import": named("planted", "thing"),
    "in what is thrown away": call(named("os", "mkdir"), text(FOLDER)) + b"0N",
    "INST": b"(" + text(FOLDER) + b"ios\nmkdir\n",
    "OBJ": b"(" + named("planted", "Maker") + text(FOLDER) + b"o",
    "NEWOBJ": named("planted", "Maker") + text(FOLDER) + b"\x85\x81",
    "NEWOBJ_EX": named("planted", "Maker") + text(FOLDER) + b"\x85}\x92",
    "a state": named("planted", "Maker") + b")\x81" + text(FOLDER) + b"b",
    "copyreg": call(named("copyreg", "__newobj__"), named("planted", "Maker"), text(FOLDER)),
}
PLANTED = """
import os, sys
made = {folder!r}
thing = None if os.path.exists(made) else os.mkdir(made)
class Maker: pass
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module whose import makes the folder; return the folder."""
    folder = tmp_path / "ran"
    (tmp_path / "planted.py").write_text(PLANTED.format(folder=str(folder)))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop("planted", None)


def refusal(tmp_path, pickled):
    (tmp_path / "index.pkl").write_bytes(pickled)
    begin = time.perf_counter()
    with pytest.raises(InputError) as refused:
        read_documents(tmp_path)
    assert time.perf_counter() - begin < 2
    message = str(refused.value)
    assert len(message) < 500
    assert "\n" not in message
    return message


PROTOCOLS = {"eval of protocol 2": (2,), "a dotted name": (4, 5), "a module of a module": (4, 5)}


@pytest.mark.parametrize(
    ("attack", "protocol"), [(name, one) for name in RUNNING for one in PROTOCOLS.get(name, (2, 4, 5))]
)
def test_what_runs_in_pickle_is_refused_and_runs_nothing(attack, protocol, planted, tmp_path):
    body = RUNNING[attack]
    for one in (FOLDER, f"mkdir {FOLDER}", f"__import__('os').mkdir('{FOLDER}')"):
        body = body.replace(text(one), text(one.format(folder=planted)))
    pickled = b"\x80" + bytes([protocol]) + body + b"."
    message = refusal(tmp_path, pickled)
    assert not planted.exists()
    assert "planted" not in sys.modules
    assert "index.pkl: " in message
    importlib.invalidate_caches()
    with suppress(TypeError, AttributeError, pickle.UnpicklingError):  # after the damage was done
        pickle.loads(pickled)  # noqa: S301
    assert planted.exists(), "the attack is one"


REFUSED = {
    "a method of a class": (call(named_on_stack("datetime", "datetime.fromisoformat"), text("2024-01-01")), "it names"),
    "a class within a class": (named_on_stack("pathlib", "PurePath.parents"), "it names pathlib.PurePath.parents"),
    "a name split elsewhere": (named_on_stack("datetime.datetime", "now"), "it names datetime.datetime.now"),
    "a name with a space": (b"cos\nsystem x\n", "positional argument"),
    "a name that is no text": (b"K\x01K\x02\x93", "no attribute"),
    "a long name": (named_on_stack("a" * 10**6, "\x1b[2J\n"), "it names aaa"),
    "getattr of a class": (call(named("builtins", "getattr"), DATE, text("today")), "it calls getattr"),
    "copyreg": (call(named("copyreg", "_reconstructor"), DATE), r"it names copyreg\._reconstructor"),
    "a state for a class": (DATE + b"N}" + text("today") + b"Ns\x86b", "a Reference where a Call must be"),
    "two states": (DATE + b")\x81}b}b", "two states"),
    "a call of what a call gave": (call(call(DATE)), "a Call where a Reference must be"),
    "a call of a text": (call(text("eval")), "a str where a Reference must be"),
    "arguments that are no tuple": (DATE + b"]R", "a list where a tuple must be"),
    "extensions": (b"\x82\x01", "opcode EXT1"),
    "two bytes of extension": (b"\x83\x01\x00", "opcode EXT2"),
    "four bytes of extension": (b"\x84\x01\x00\x00\x00", "opcode EXT4"),
    "a persistent id": (b"Pid\n", "opcode PERSID"),
    "a binary persistent id": (b"K\x01Q", "opcode BINPERSID"),
    "a buffer": (b"\x97", "opcode NEXT_BUFFER"),
    "a byte array": (b"\x96" + struct.pack("<Q", 0), "opcode BYTEARRAY8"),
    "more bytes than there are": (b"\x8e" + struct.pack("<Q", 2**40), "expected 1099511627776 bytes"),
    "more bytes than can be": (b"\x8e" + struct.pack("<Q", 2**64 - 1), "byte count"),
    "a huge memo": (b"Nr\xff\xff\xff\xff", "no documents"),
    "a memo that is not there": (b"h\x07", "7"),
    "a set by appending": (b"\x8fN\x61", "a Call where a list must be"),
    "items for a class": (DATE + b"(N\x90", "a Reference where a Call must be"),
    "a key that hashes for ever": (b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"Ns", "a key of type tuple"),
    "a mark that is not there": (b"t", "pop from empty list|markobject"),
    "two values": (b"NN", "no documents"),
    "a later protocol": (b"\x80\x06N", "its protocol is 6"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_pickle_of_values_has_is_refused(name, tmp_path):
    body, message = REFUSED[name]
    found = refusal(tmp_path, b"\x80\x04" + body + b".")
    assert pytest.raises(InputError, match=message).matches(InputError(found))


def stored(metadata):
    """A store of one document in LangChain's shape, with metadata as opcodes."""
    document = (
        named("langchain_core.documents.base", "Document") + b")\x81}" + text("__dict__") + b"}(" + text("page_content")
    )
    document += text("a text") + text("metadata") + metadata + b"us" + b"b"
    docstore = named("langchain_community.docstore.in_memory", "InMemoryDocstore") + b")\x81}" + text("_dict")
    return b"\x80\x04" + docstore + b"}" + text("id0") + document + b"ssb" + b"}K\x00" + text("id0") + b"s\x86."


def value(*opcodes):
    return b"}" + text("when") + b"".join(opcodes) + b"s"


def test_a_store_in_opcodes_is_read(tmp_path):
    (tmp_path / "index.pkl").write_bytes(stored(value(call(DATE, b"C\x04\x07\xe8\x02\x1d"))))
    (document,) = read_documents(tmp_path)
    assert (document.id, document.text, document.metadata) == ("id0", "a text", {"when": date(2024, 2, 29)})


DAMAGED = {
    "no such day": (call(DATE, b"C\x04\x07\xe8\x02\x1e"), "day"),
    "too few bytes": (call(DATE, b"C\x03\x07\xe8\x02"), "unpack"),
    "a date of a text": (call(DATE, text("2024")), "a str in place of bytes"),
    "a date with a state": (call(DATE, b"C\x04\x07\xe8\x02\x1d") + b"}b", "a datetime.date with a state"),
    "a class itself": (DATE, "can't hold Reference"),
    "an hour as zone": (call(named("datetime", "time"), b"C\x06" + bytes(6), call(DATE)), "a datetime.date in place of"),
    "a duration beyond all": (call(named("datetime", "timedelta"), b"J\xff\xff\xff\x7f"), "days"),
    "a decimal of nothing": (call(named("decimal", "Decimal"), text("x")), "ConversionSyntax"),
    "a UUID without a number": (named("uuid", "UUID") + b")\x81", "NoneType"),
    "a path of a number": (call(PATH, b"K\x01"), "str"),
    "a set of no list": (call(named("builtins", "set"), b"K\x01"), "int"),
    "a zone outside of the database": (
        call(
            named("datetime", "time"),
            b"C\x06" + bytes(6),
            call(
                call(named("builtins", "getattr"), named("zoneinfo", "ZoneInfo"), text("_unpickle")),
                text("../../etc/passwd"),
            ),
        ),
        "ZoneInfo keys",
    ),
    "an object in numpy": (
        call(
            named("numpy._core.multiarray", "scalar"),
            call(named("numpy", "dtype"), text("O8")) + b"(K\x03" + text("|") + b"tb",
            b"C\x08" + bytes(8),
        ),
        "a numpy scalar of type O8",
    ),
    "a document in metadata": (named("langchain_core.documents.base", "Document") + b")\x81", "can't hold langchain_core"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_value_that_was_never_pickled_is_refused(name, tmp_path):
    body, message = DAMAGED[name]
    found = refusal(tmp_path, stored(value(body)))
    assert pytest.raises(InputError, match=message).matches(InputError(found)), found


def test_a_list_in_itself_is_refused(tmp_path):
    assert "recursion" in refusal(tmp_path, stored(value(b"]q\x05h\x05\x61")))


def test_long_keys_within_each_other_take_little_memory(tmp_path):
    key = text("k" * 10**6)
    nested = b"}" + key + b"q\x07" + b"}h\x07" * 200 + b"N" + b"s" * 201
    before = os.times().user
    (tmp_path / "index.pkl").write_bytes(stored(value(nested)))
    (document,) = read_documents(tmp_path)
    assert list(document.metadata["when"]) == ["k" * 10**6]
    assert os.times().user - before < 1
