"""The manual: blocks of Python run, commands exist, links lead somewhere, every page is in the navigation."""

import re

import pytest
import yaml

from docs import hooks
from tests import snippets
from tests.snippets import PAGES, ROOT, blocks, broken_links, command_lines, unknown_options

WITH_BLOCKS = [page for page, text in PAGES.items() if blocks(text)]
COMMANDS = sorted({line for text in PAGES.values() for line in command_lines(text)})


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_every_block_of_python_runs(page, run_blocks):
    run_blocks(page, PAGES[page])


def test_there_are_blocks_and_commands_to_check():
    assert len(WITH_BLOCKS) >= 10
    assert len(COMMANDS) >= 40


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_is_one_that_the_program_takes(line):
    assert unknown_options(line) == []


def test_a_wrong_block_option_command_or_link_is_found(run_blocks):
    assert unknown_options('tp-retrieval search my-index "a query" --kk 3 -k 2') == ["--kk"]
    with pytest.raises(KeyError, match="serch"):
        unknown_options("tp-retrieval serch my-index")
    page = "[a](deploy.md) [b](deploy.md#backup) [c](deploy.md#no-such) [d](no-such.md) [e](#nowhere)"
    assert broken_links(page, ROOT / "docs") == ["deploy.md#no-such", "no-such.md", "#nowhere"]
    with pytest.raises(AttributeError, match="no_such_method"):
        run_blocks("a page", "```python\nindex.no_such_method()\n```\n")


def names(nav):
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else names(value)


def test_every_page_is_in_the_navigation_once():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    made = {"commands.md", *hooks.SOURCES}
    assert sorted(names(settings["nav"])) == sorted(made | {page.removeprefix("docs/") for page in PAGES})
    assert len(hooks.CARDS) == 8


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    """Links to pages that are made when the manual is built are checked then."""
    made = {"commands.md", *hooks.SOURCES}
    assert [link for link in broken_links(PAGES[page], ROOT / "docs") if link.partition("#")[0] not in made] == []


def test_the_page_of_commands_has_every_command_with_its_options():
    page = hooks.commands()
    for command, options in snippets.commands().items():
        (section,) = re.findall(rf"^#+ {command}$(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
        assert [option for option in options if f"`{option}" not in section and f", {option}" not in section] == []


@pytest.mark.parametrize(
    ("link", "page", "leads_to"),
    [
        ("deploy.md", "server.md", "deploy.md"),
        ("../CONTRIBUTING.md", "server.md", "contributing.md"),
        ("../examples/quickstart.py", "start.md", "repository/examples/quickstart.py"),
        ("docs/guarantees.md", "contributing.md", "guarantees.md"),
        ("../tp_retrieval/embedding/recipes/gemma-3-270m/sts.md", "recipes.md", "card-gemma-3-270m-sts.md"),
    ],
)
def test_links_lead_where_a_file_is_in_the_manual(link, page, leads_to):
    assert hooks.target(link, page) == leads_to


def test_a_folder_is_named_and_not_linked():
    assert hooks.is_folder("../benchmarks", "results.md")
    assert not hooks.is_folder("../tp_retrieval/embedding/recipes/gemma-3-270m", "results.md")  # has a page
    assert not hooks.is_folder("../LICENSE", "results.md")


def test_a_site_is_refused_for_what_leads_nowhere_or_comes_from_elsewhere(tmp_path):
    (tmp_path / "other.html").write_text("<h2 id=here>Here</h2>")
    page = tmp_path / "page.html"
    page.write_text(
        '<a href="other.html#here">a</a><a href="https://example.org/">b</a><img src="other.html"><a href="#">c</a>'
    )
    assert [*hooks.problems(tmp_path)] == []
    page.write_text(
        '<a href="other.html#there">a</a><a href="none.html">b</a><img src="https://example.org/x.png">'
        '<link rel="stylesheet" href="//example.org/x.css"><script src="http://example.org/x.js"></script>'
    )
    assert [*hooks.problems(tmp_path)] == [
        "page.html: img is loaded from https://example.org/x.png",
        "page.html: link is loaded from //example.org/x.css",
        "page.html: script is loaded from http://example.org/x.js",
        "page.html: other.html#there has no such place",
        "page.html: none.html is not there",
    ]
