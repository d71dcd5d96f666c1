"""README: every block of Python runs, in order, the program takes every command line, every link leads somewhere."""

import pytest

from tests.snippets import ROOT, blocks, broken_links, command_lines, unknown_options

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_block_of_python_runs(run_blocks):
    assert blocks(README)
    run_blocks("README.md", README)


@pytest.mark.parametrize("line", command_lines(README))
def test_every_command_line_is_one_that_the_program_takes(line):
    assert unknown_options(line) == []


def test_there_are_commands_to_check():
    assert command_lines(README)


def test_every_link_leads_to_a_file_and_a_heading_that_are_there():
    assert broken_links(README, ROOT) == []
