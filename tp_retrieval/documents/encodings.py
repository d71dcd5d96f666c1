"""Text of bytes in any encoding."""

from __future__ import annotations

import codecs

from tp_retrieval.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = "cp1252"
_ENOUGH = 1 << 16  # bytes that an encoding is guessed from


def decoded(data: bytes, name: object, encoding: str | None = None) -> str:
    """Return bytes as text without a byte order mark: what a mark says, `encoding`, UTF-8, or else the likeliest encoding.

    Raises `InputError` beginning with `name` for what is no text.
    """
    for mark, marked in _MARKS:
        if data.startswith(mark):
            return _strictly(data, marked, name)
    if encoding is not None:
        return _strictly(data, encoding, name)
    if b"\0" in data:
        raise InputError(f"{name}: a binary file, not text (a NUL byte at {data.index(0)})")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return _strictly(data, _likeliest(data, name, error), name)


def decoded_utf8(data: bytes, name: object) -> str:
    """Return UTF-8 as text without a byte order mark; raise `InputError` naming the byte that is wrong."""
    return _strictly(data, "utf-8-sig", name)


def _strictly(data: bytes, encoding: str, name: object) -> str:
    label = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
    try:
        text = data.decode(encoding)
        text.encode()  # some encodings yield halves of characters
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not {label} text (byte {data[error.start]:#04x} at {error.start})") from error
    except LookupError as error:
        raise InputError(f"{name}: no such encoding {encoding!r}") from error
    except ValueError as error:
        raise InputError(f"{name}: not {label} text ({error})") from error
    return text


def check_encoding(encoding: str) -> None:
    """Raise `InputError` for a name that is no encoding of text."""
    try:
        bytes(4).decode(encoding)
    except (LookupError, ValueError) as error:
        raise InputError(f"encoding: no such encoding {encoding!r}") from error


def _likeliest(data: bytes, name: object, error: UnicodeDecodeError) -> str:
    """Return the likeliest encoding of bytes that are not UTF-8: Western European where that makes words.

    The detector alone takes short Western texts for Central European or Asian ones.
    """
    from charset_normalizer import from_bytes

    around = data[max(error.start - _ENOUGH // 2, 0) : error.start + _ENOUGH // 2]
    best = from_bytes(around).best()
    if best is None:
        raise InputError(f"{name}: not text in any known encoding (byte {data[error.start]:#04x} at {error.start})")
    try:
        western = around.decode(_WESTERN)
    except UnicodeDecodeError:
        return best.encoding
    others = [character for character in western if not character.isascii()]
    return _WESTERN if others and all(map(_is_western, others)) and 4 * len(others) < len(western) else best.encoding


def _is_western(character: str) -> bool:
    return (character.isalpha() and character not in "ªºµƒ") or character in "«»„“”‘’‚–—…€£§°·¿¡ "
