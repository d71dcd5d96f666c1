"""The picture of a terminal: commands that the program takes, hits that it prints, and nothing from elsewhere."""

import html
import re
import runpy
import xml.etree.ElementTree as ET

import pytest

from tests.snippets import ROOT, unknown_options

RECORD = runpy.run_path(str(ROOT / "examples" / "terminal" / "record.py"))
PICTURE = (ROOT / "docs" / "terminal.svg").read_text(encoding="utf-8")
HIT = re.compile(r"^(?:\d+\.|\[\d+\]) \S+ › .+")


def lines(svg):
    """Return the lines of text in a picture, from top to bottom."""
    rows = {}
    for y, text in re.findall(r'<text class="terminal-r\d+" x="[^"]*" y="([\d.]+)"[^>]*>(.*?)</text>', svg):
        rows[float(y)] = rows.get(float(y), "") + html.unescape(text).replace("\xa0", " ")
    return [rows[y].rstrip() for y in sorted(rows)]


def hits(svg):
    return [line for line in lines(svg) if HIT.match(line)]


def test_the_picture_shows_the_commands_and_what_they_found():
    shown = [line.removeprefix("$ ") for line in lines(PICTURE) if line.startswith("$ ")]
    assert shown == [*RECORD["COMMANDS"]]
    for command in shown:
        assert unknown_options(command) == []
    assert len(hits(PICTURE)) >= 2
    assert 15 <= len(lines(PICTURE)) <= 34, "readable where a README shows it"


def test_the_picture_loads_nothing_and_names_no_machine():
    ET.fromstring(PICTURE)
    assert not re.search(r"@font-face|url\((?!#)|href=|<script|<image", PICTURE)
    assert not re.search(r"/tmp/|/home/|/root/", PICTURE)


def test_any_output_is_drawn_as_it_was_printed():
    drawn = RECORD["drawn"](
        [("tp-retrieval search i 'a < b & c'", "1. \x1b[36ma.md:3 › A <b> & c\x1b[0m\n   relevance 0.50")]
    )
    assert lines(drawn) == ["$ tp-retrieval search i 'a < b & c'", "1. a.md:3 › A <b> & c", "   relevance 0.50"]


@pytest.mark.slow
def test_the_commands_still_print_the_hits_of_the_picture():
    fresh = RECORD["drawn"](RECORD["record"]())
    assert hits(fresh) == hits(PICTURE)
    assert [line for line in lines(fresh) if line.startswith("$ ")] == [
        line for line in lines(PICTURE) if line.startswith("$ ")
    ]
