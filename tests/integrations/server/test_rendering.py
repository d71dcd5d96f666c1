"""Texts as HTML: Markdown and code for people, and nothing that runs or loads, whatever a document holds."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tp_retrieval import Document, Hit
from tp_retrieval.integrations.server import rendering
from tp_retrieval.integrations.server.rendering import rendered, rendered_hits

HOSTILE = """
# <script>alert(1)</script>

<img src=x onerror=alert(1)> ![a *picture*](http://evil.example/a.png) <iframe src="http://evil.example"></iframe>

[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](data:text/html,<script>alert(1)</script>)
[d](java&#10;script:alert(1)) [e](//evil.example) [f](file:///etc/passwd) [g](vbscript:x) <javascript:alert(1)>
[h]( javascript:alert(1)) [i](b.md)
[![x](data:image/svg+xml,x)](javascript:alert(1))

[good](https://good.example "a title\\" onmouseover=alert(1)") <mailto:a@good.example>

```"><script>alert(1)</script> onload=x
<script>alert(1)</script>
```

| <b>a</b> |
|:--|
| <svg onload=alert(1)> |
"""
TAGS = frozenset(
    "p h4 h5 h6 ul ol li blockquote pre code em strong s a span table thead tbody tr th td hr br section".split(" ")  # noqa: SIM905
)
ALLOWED = {
    ("a", "href"),
    ("a", "rel"),
    ("a", "target"),
    ("span", "class"),
    ("code", "class"),
    ("pre", "class"),
    ("ol", "start"),
}
ALLOWED |= {("section", "class")}
PIECES = [
    *"ab<>[]()!`*_#&;:/\"'=|-~\\ \n",
    "<b>",
    "<script>",
    "javascript:",
    "https://",
    "](",
    "onload=",
    "&#10;",
    "\n\n",
    "```",
    "$",
]


class _Inspector(HTMLParser):
    """What stands in HTML: its tags, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text += data


def check(html):
    page = _Inspector(html)
    assert set(page.tags) <= TAGS
    assert {pair[:2] for pair in page.attributes} <= ALLOWED
    assert all(value.startswith(("http://", "https://", "mailto:")) for _, name, value in page.attributes if name == "href")
    assert all(value == "noopener noreferrer" for _, name, value in page.attributes if name == "rel")
    return page


def test_nothing_hostile_is_left():
    page = check(rendered(HOSTILE))
    links = [value for _, name, value in page.attributes if name == "href"]
    assert links == ["https://good.example", "mailto:a@good.example"]
    assert "[a *picture*]" in page.text
    assert page.text.count("<script>alert(1)</script>") == 2  # as text: in the heading and in the fence


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_whatever_is_written_nothing_hostile_is_left(text):
    for path in (None, "a.md", "a.py", "a.rst", "a.txt", "a.js"):
        check(rendered(text, path))


@pytest.mark.parametrize(
    ("text", "path", "html"),
    [
        ("# A\n\n*b* `c<d`", None, "<h4>A</h4>\n<p><em>b</em> <code>c&lt;d</code></p>\n"),
        ("# A", "a/b.MD", "<h4>A</h4>\n"),
        ("# A\n", "notes.txt", '<pre class="plain"># A\n</pre>'),
        (
            "x = 1\n",
            "a.py",
            '<pre class="code"><span class="n">x</span> <span class="o">=</span> <span class="mi">1</span>\n</pre>',
        ),
        ("1 < 2", "no-suffix", '<pre class="plain">1 &lt; 2</pre>'),
        ("```nonsense\na<b\n```", None, '<pre><code class="language-nonsense">a&lt;b\n</code></pre>\n'),
        ("``x`` y\n", "a.rst.txt", '<pre class="plain"><span class="s">``x``</span> y\n</pre>'),
    ],
)
def test_a_text_is_rendered_as_its_file_is_named(text, path, html):
    assert rendered(text, path) == html


def test_what_stands_around_a_hit_is_apart():
    chunks = tuple(Document(text, {"path": "a.md"}, text) for text in ("one", "two"))
    hit = Hit(chunks[1], 1.0, 1, {}, context=chunks)
    assert rendered_hits([hit]) == [
        '<section class="around"><p>one</p>\n</section><section class="own"><p>two</p>\n</section>'
    ]


def test_long_texts_are_not_rendered():
    hits = [Hit(Document("a" * length, {}, "a"), 1.0, 1, {}) for length in (8_000, 8_001)]
    assert [page is None for page in rendered_hits(hits)] == [False, True]


def test_rendering_ends_when_it_takes_too_long(monkeypatch):
    monkeypatch.setattr(rendering, "_SECONDS", 0.05)
    monkeypatch.setattr(rendering, "rendered", lambda text, path=None: time.sleep(0.06) or text)
    hits = [Hit(Document(str(i), {}, str(i)), 1.0, 1, {}) for i in range(3)]
    assert rendered_hits(hits) == ["0", None, None]


@pytest.mark.parametrize("language", ["autohotkey", "autoit", "fan"])
def test_code_of_languages_whose_lexers_are_slow_is_shown_as_it_stands(language):
    assert "<span" in rendered("```python\nx = 1\n```")
    assert "<span" not in rendered(f"```{language}\nx = 1\n```")


def test_a_table_that_would_grow_is_shown_as_it_stands():
    assert "<table" in rendered("a|b\n-|-\n1|2\n")
    wide = "a|" * 1_000 + "\n" + "-|" * 1_000 + "\n" + "x\n" * 2_000
    assert "<table" not in rendered(wide)
    assert len(rendered(wide)) < 2 * len(wide)


def test_the_texts_around_a_hit_count_against_its_size_and_time(monkeypatch):
    monkeypatch.setattr(rendering, "_SECONDS", 3600.0)  # so that its size alone counts
    around = tuple(Document(f"{i} " + "*a* " * 1_900, {}, str(i)) for i in range(60))
    hit = Hit(around[0], 1.0, 1, {}, around)
    assert rendered_hits([hit]) == [None]
    assert rendered_hits([Hit(around[0], 1.0, 1, {}, around[:2])])[0] is not None
    monkeypatch.setattr(rendering, "_SECONDS", -1.0)
    assert rendered_hits([Hit(around[0], 1.0, 1)]) == [None]
