"""What the readers of ZIP archives share: a limit on what an archive unpacks to, and errors with the file's name."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from xml.parsers.expat import ExpatError

from tp_retrieval.documents.formats import SourceFile
from tp_retrieval.errors import InputError, TPRetrievalError

_LARGEST = 1 << 29  # bytes that an archive may unpack to
_ENCRYPTED = b"\xd0\xcf\x11\xe0"  # the beginning of a compound file, in which Office keeps encrypted documents


@contextmanager
def opened(file: SourceFile, *errors: type[Exception]) -> Iterator[zipfile.ZipFile]:
    """Return a context with a file's archive; errors in it, `errors` of a library among them, are `InputError`.

    Raises `InputError` for what is no archive, for an encrypted one, and for one that unpacks to more than 512 MiB.
    """
    if file.data.startswith(_ENCRYPTED):
        raise InputError(f"{file.path}: encrypted, or of an Office older than 2007")
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                raise InputError(f"{file.path}: unpacks to more than {_LARGEST >> 20} MiB")
            if any(entry.flag_bits & 1 for entry in archive.infolist()):
                raise InputError(f"{file.path}: encrypted")
            yield archive
    except TPRetrievalError:
        raise
    except _BROKEN + errors as error:
        raise InputError(f"{file.path}: can't be read ({type(error).__name__}: {str(error)[:200]})") from error


_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    ExpatError,
    OSError,
    SyntaxError,  # of lxml and ElementTree
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    NotImplementedError,
    EOFError,
)
"""What the libraries raise for files that are no documents of their kind."""
