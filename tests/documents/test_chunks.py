"""Where files are cut, and that a chunk's `start` and `end` are its characters in the file."""

import pytest

from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.formats import ReadingOptions
from tp_retrieval.documents.sources import read


def words(text):
    return len(text.split())


def cut(tmp_path, data, tokens=8, name="a.md"):
    """Return the headings and first words of a file's chunks, whose positions are checked."""
    file = tmp_path / name
    file.write_bytes(data.encode())
    chunks = chunk(read(file), tokens, words)
    text = data.removeprefix("\ufeff").replace("\r\n", "\n")
    begin = 0
    for i, document in enumerate(chunks):
        start, end = document.metadata["start"], document.metadata["end"]
        assert text[start:end] == document.text
        assert not text[begin:start].strip()  # nothing is lost, nothing is there twice
        assert (document.metadata["chunk"], document.metadata["chunks"]) == (i, len(chunks))
        begin = end
    assert not text[begin:].strip()
    return [(document.metadata["headings"], document.text) for document in chunks]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_setext_and_atx_titles_lead_to_their_text(tmp_path, end, mark):
    lines = ["Guide", "=====", "", "Hello.", "", "Two", "lines", "---", "Under.", "# Next #", "More.", "### C#", "Deep."]
    assert cut(tmp_path, mark + end.join(lines)) == [
        (["Guide"], "Guide\n=====\n\nHello."),
        (["Guide", "Two lines"], "Two\nlines\n---\nUnder."),
        (["Next"], "# Next #\nMore."),
        (["Next", "C#"], "### C#\nDeep."),
    ]


@pytest.mark.parametrize(
    "block",
    [
        "~~~\n```\n# x\n~~~",
        "```\n~~~\n# x\n```",
        "````\n```\n# x\n````",
        "```\n    ```\n# x\n```",
        "    # x\n\n    y\n    ===",
        "- item\n\n  # x\n\n  y\n  ===",
        "> # x\n>\n> y\n> ---",
        "<!--\n# x\n-->",
        "- - -",
        "| x |\n|---|",
        "\\# x",
        "#x",
        "####### x",
        "#",
    ],
)
def test_what_is_no_heading_of_the_file_is_text(tmp_path, block):
    found = cut(tmp_path, f"# One\n\nBefore.\n\n{block}\n\nAfter.\n\n# Two\n\nEnd.\n", tokens=100)
    assert found == [(["One"], f"# One\n\nBefore.\n\n{block}\n\nAfter."), (["Two"], "# Two\n\nEnd.")]


def test_an_unclosed_fence_reaches_to_the_end(tmp_path):
    assert [headings for headings, _ in cut(tmp_path, "# One\n\n```\n# x\n~~~\n\n# y\n", tokens=100)] == [["One"]]


@pytest.mark.parametrize(
    ("front", "metadata"),
    [
        ("---\ntitle: x\n---\n", {"title": "x"}),
        ("---\n# note\na: |\n  ---\n...\n", {"a": "---\n"}),
        (
            "---\ndate: 2024-02-01\ntags: [a, 1]\nby: {x: null}\n---\n",
            {"date": "2024-02-01", "tags": ["a", 1], "by": {"x": None}},
        ),
    ],
)
def test_front_matter_is_metadata_and_holds_no_heading(tmp_path, front, metadata):
    (tmp_path / "a.md").write_text(f"{front}\n# One\n\nText.\n")
    (document,) = chunk(read(tmp_path / "a.md"), 100, words)
    assert document.text == "# One\n\nText."
    assert (tmp_path / "a.md").read_text()[document.metadata["start"] : document.metadata["end"]] == document.text
    assert {key: document.metadata[key] for key in metadata} == metadata
    assert document.metadata["line"] == front.count("\n") + 2


def test_what_is_no_mapping_between_dashes_stays_text(tmp_path):
    templated = "---\n{{ data }}\n---"
    assert cut(tmp_path, f"{templated}\n# One\n\nText.\n", tokens=100) == [([], templated), (["One"], "# One\n\nText.")]
    laughs = "---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---"
    assert cut(tmp_path, f"{laughs}\n# One\n\nText.\n", tokens=100) == [([], laughs), (["One"], "# One\n\nText.")]
    assert [headings for headings, _ in cut(tmp_path, "---\n\n# A\n\nText.\n\n---\n\n# B\n\nMore.")] == [[], ["A"], ["B"]]


def test_long_sections_are_split_and_titles_of_rst_stay(tmp_path):
    long = "One two three four. " * 5
    assert cut(tmp_path, f"Guide\n=====\n{long}") == [
        (["Guide"], "Guide\n====="),
        *[(["Guide"], "One two three four. One two three four.")] * 2,
        (["Guide"], "One two three four."),
    ]
    text = "====\nFAQ\n====\n\nIntro.\n\nWhy?\n----\n\n# no heading\n"
    assert cut(tmp_path, text, name="a.rst") == [(["FAQ"], text[:22].strip()), (["FAQ", "Why?"], text[22:].strip())]


def test_a_digest_is_of_the_bytes_and_of_how_they_are_read_and_cut(tmp_path):
    (tmp_path / "a.md").write_text("# A\n\né\n")
    source = read(tmp_path / "a.md")
    assert {document.metadata["digest"] for document in chunk(source, 256, words)} == {source.digest(256)}
    others = [read(tmp_path / "a.md", options=options).digest(256) for options in (ReadingOptions("latin-1"),)]
    (tmp_path / "a.md").write_bytes(source.data + b" ")
    digests = [source.digest(256), source.digest(255), read(tmp_path / "a.md").digest(256), *others]
    assert len({*digests}) == len(digests)
    assert read(tmp_path / "a.md", "another name").digest(256) == read(tmp_path / "a.md").digest(256)


@pytest.mark.parametrize("text", ["&lt;script&gt; is a tag", "&lt;!-- begins a comment", "&lt;?php begins PHP"])
def test_a_tag_in_the_text_of_a_page_hides_no_heading(tmp_path, text):
    file = tmp_path / "a.html"
    file.write_text(f"<p>{text}</p><h2>One</h2><p>a b</p><h2>Two</h2><p>c d</p>")
    headings = [document.metadata["headings"] for document in chunk(read(file), 8, words)]
    assert headings == [[], ["One"], ["Two"]]
