"""Text in any encoding is read as what was written."""

import pytest

from tp_retrieval import InputError
from tp_retrieval.documents.encodings import decoded

GERMAN = "Grüße aus Köln: schöne Straßen, größere Häuser.\n"
RUSSIAN = "Кодировка определяется по частоте букв, если текст достаточно длинный. " * 4
JAPANESE = "これは日本語の文章です。漢字とかなが混ざっています。文字コードを判定します。" * 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
def test_unicode_with_and_without_a_mark(encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    assert decoded((mark + GERMAN + RUSSIAN).encode(encoding), "x") == GERMAN + RUSSIAN


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "latin-1"),
        ("Café déjà vu – naïve “quotes” 5 €", "cp1252"),
        ("¿Qué tal, señor? ¡Adiós!", "latin-1"),
        ("naïve", "latin-1"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        ("这是一个中文文本，用来测试编码的识别。" * 4, "gb18030"),
        ("Zażółć gęślą jaźń, to jest polski tekst do sprawdzenia. " * 4, "cp1250"),
    ],
)
def test_legacy_encodings_are_detected(text, encoding):
    assert decoded(text.encode(encoding), "x") == text


def test_an_encoding_that_is_given_is_used_but_for_a_mark():
    assert decoded("Привет".encode("koi8-r"), "x", "koi8-r") == "Привет"
    assert decoded("Привет".encode("utf-16"), "x", "koi8-r") == "Привет"
    with pytest.raises(InputError, match=r"x: not ASCII text \(byte 0xc3 at 2\)"):
        decoded("Grü".encode(), "x", "ascii")
    with pytest.raises(InputError, match="x: no such encoding 'utf-x'"):
        decoded(b"a", "x", "utf-x")


def test_binary_data_is_refused():
    with pytest.raises(InputError, match=r"x: a binary file, not text \(a NUL byte at 2\)"):
        decoded(b"ab\0c", "x")
