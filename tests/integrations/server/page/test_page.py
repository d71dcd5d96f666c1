"""The page in a Chromium, on a real server of a tiny model: what people see, and what documents cannot do."""

import inspect
import json
import os
import time
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.integrations.server.page.conftest import NASTY

pytestmark = pytest.mark.slow

AXE = Path(os.environ.get("AXE_CORE", Path(__file__).parents[4] / "node_modules" / "axe-core" / "axe.min.js"))
HITS = "#hits > li"
PHONE = {"viewport": {"width": 390, "height": 844}}


def asked(page):
    """What the address asks for."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def ids(page):
    return page.eval_on_selector_all(HITS, "nodes => nodes.map((node) => node.dataset.id)")


def until(condition, seconds=20):
    """Wait until a condition holds; Playwright's own wait evaluates strings in the page, which its policy forbids."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, inspect.getsource(condition)
        time.sleep(0.05)


def wait_for_status(page, text):
    until(lambda: text in page.inner_text("#status"))


def marked(page):
    """The words that are marked in the hits."""
    return set(page.locator(f"{HITS} mark").all_inner_texts())


def events(*pairs):
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in pairs)


def answer_with(page, body):
    page.route("**/v1/answers", lambda route: route.fulfill(content_type="text/event-stream", body=body))


def test_a_search_lives_in_the_address(visit):
    page = visit("?q=saw+cuts&mode=lexical&k=4&where=" + quote('{"path": {"$exists": true}}'))
    page.wait_for_selector(HITS)
    assert page.input_value("#query") == "saw cuts"
    assert page.input_value("#mode") == "lexical"
    assert page.locator(HITS).count() == 3
    assert marked(page) == {"cuts"}  # "saw" has three letters and is not worth marking, as in the terminal
    first = page.locator(HITS).first
    assert "line 5 › Tools" in first.locator(".title").inner_text()
    assert (
        "shares ‘saw’, ‘cuts’" not in first.locator(".reason").inner_text()
    )  # "saw" has three letters, as in the terminal
    assert "shares ‘cuts’" in first.locator(".reason").inner_text()
    assert first.locator("svg").get_attribute("aria-label").startswith("words: BM25 ")
    page.fill("#query", "hammer")
    page.press("#query", "Enter")
    wait_for_status(page, "3 hits")
    until(lambda: marked(page) == {"hammer"})
    assert asked(page)["q"] == "hammer"
    page.go_back()
    until(lambda: marked(page) == {"cuts"})
    assert page.input_value("#query") == "saw cuts"
    page.go_forward()
    until(lambda: marked(page) == {"hammer"})


def test_typing_alone_searches_nothing(visit):
    page = visit()
    until(lambda: page.input_value("#index") == "tools")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("saw")
    page.wait_for_timeout(700)
    assert page.input_value("#query") == "saw"
    assert page.locator(HITS).count() == 0
    page.click("button[type=submit] >> text=Search")
    page.wait_for_selector(HITS)
    assert asked(page) == {"q": "saw", "index": "tools"}


def test_a_filter_of_nonsense_is_told(visit):
    page = visit("?q=saw&where=nonsense")
    wait_for_status(page, "The filter is no JSON")
    page = visit("?q=saw&where=" + quote('{"a": {"$no": 1}}'))
    wait_for_status(page, "unknown operator")


def test_facets_become_chips_that_can_be_removed(visit):
    page = visit("?q=saw&k=50", viewport={"width": 1200, "height": 900})
    page.wait_for_selector(HITS)
    everything = page.locator(HITS).count()
    page.click("#facet-list button:has-text('docs/')")
    page.wait_for_selector("#chips button >> text=folder: docs/")
    until(lambda: page.locator(HITS).count() < everything)
    assert json.loads(asked(page)["where"]) == {"path": {"$gte": "docs/", "$lt": "docs0"}}
    assert all("docs/" in page.locator(HITS).nth(i).get_attribute("data-id") for i in range(page.locator(HITS).count()))
    page.click("#chips button")
    until(lambda: page.locator(HITS).count() == everything)
    assert "where" not in asked(page)
    page.click("#facet-list button:has-text('blue')")
    until(lambda: page.locator(HITS).count() == 1)
    assert ids(page) == ["blue"]
    assert page.locator("#chips").inner_text().strip() == "colour: blue ×"


def test_one_hit_a_file_and_a_namespace(visit):
    page = visit("?q=saw&group=path&k=50&where=" + quote('{"path": {"$exists": true}}'))
    page.wait_for_selector(HITS)
    assert page.locator(HITS).count() == 3
    page = visit("?q=apples&namespace=theirs")
    page.wait_for_selector(HITS)
    assert ids(page) == ["theirs"]
    page.select_option("#namespace", "")
    until(lambda: "theirs" not in ids(page))
    assert "namespace" not in asked(page)


def test_what_stands_around_a_hit_is_shown_in_place(visit):
    page = visit("?q=saw+cuts&mode=lexical&k=1&where=" + quote('{"path": "docs/tools.md"}'))
    first = page.locator(HITS).first
    first.locator(".title").click()
    assert first.locator(".text").inner_text().strip() == "A saw cuts wood."
    first.locator(".around").click()
    page.wait_for_selector(".text section.own")
    assert first.locator("section.own").inner_text().strip() == "A saw cuts wood."
    assert "A hammer drives nails." in first.locator("section.around").first.inner_text()
    assert "A plane" in first.locator("section.around").last.inner_text()
    assert first.locator(".text mark").count() >= 1


def test_an_answer_with_citations_leads_to_its_hits(visit):
    page = visit("?q=saw&k=3")
    page.wait_for_selector(HITS)
    second = ids(page)[1]
    found = page.evaluate(
        "async () => (await (await fetch('v1/search', {method: 'POST', headers: {'content-type': 'application/json'},"
        " body: JSON.stringify({query: 'saw', k: 3, index: 'tools'})})).json()).hits"
    )
    answer = {"refused": False, "answer": "It cuts. [2] <b>Bold</b> [9]", "evidence": 0.5, "hits": found}
    answer["sentences"] = [{"text": "It cuts.", "sources": [2]}, {"text": "<b>Bold</b> [9]", "sources": []}]
    body = events(("hits", {"hits": found}), ("text", {"text": "It "}), ("text", {"text": "cuts. [2]"}), ("answer", answer))
    answer_with(page, body)
    page.click("#answer-button")
    page.wait_for_selector("#answer-text a")
    page.wait_for_selector("#answer-stop", state="hidden")
    assert page.inner_text("#answer-text") == "It cuts. [2] <b>Bold</b> [9]"
    assert page.locator("#answer-text a").count() == 1
    assert "1 of the 2 sentences" in page.inner_text("#answer-note")
    page.click("#answer-text a")
    assert page.eval_on_selector("li.cited", "node => node.dataset.id") == second
    assert page.evaluate("document.activeElement.dataset.id") == second
    page.press("body", "/")
    assert page.evaluate("document.activeElement.id") == "query"


def test_a_refused_answer_is_said(visit):
    page = visit()
    until(lambda: page.input_value("#index") == "tools")
    refused = {"refused": True, "answer": "-", "evidence": 0.0, "hits": [], "sentences": []}
    body = events(("hits", {"hits": []}), ("answer", refused))
    answer_with(page, body)
    page.fill("#query", "saw")
    page.click("#answer-button")
    page.wait_for_selector("#answer.refused")
    assert page.inner_text("#answer-text") == "No answer: the hits do not hold one."
    assert page.locator(HITS).count() == 10  # it searched first


def test_a_cited_hit_that_is_not_in_the_list_is_added(visit):
    page = visit("?q=saw&k=1")
    page.wait_for_selector(HITS)
    other = {"rank": 2, "score": 1.0, "relevance": 0.5, "parts": {"dense": 0.5}, "id": "other", "text": "a", "metadata": {}}
    answer = {
        "refused": False,
        "answer": "So. [1]",
        "evidence": 1,
        "hits": [other],
        "sentences": [{"text": "", "sources": [1]}],
    }
    body = events(("hits", {"hits": [other]}), ("answer", answer))
    answer_with(page, body)
    page.click("#answer-button")
    page.click("#answer-text a")
    assert ids(page)[1:] == ["other"]
    assert page.eval_on_selector("li.cited", "node => node.dataset.id") == "other"


def test_an_answer_can_be_stopped_and_its_errors_are_told(visit):
    page = visit("?q=saw")
    page.wait_for_selector(HITS)
    page.route("**/v1/answers", lambda route: None)  # it never comes
    page.click("#answer-button")
    page.click("#answer-stop")
    until(lambda: page.inner_text("#answer-note") == "Stopped.")
    page.unroute("**/v1/answers")
    for code, message in ((404, "no writing model"), (429, "others write")):
        body = events(("hits", {"hits": []}), ("error", {"error": {"code": code, "message": message}}))
        answer_with(page, body)
        page.click("#answer-button")
        until(lambda message=message: message in page.inner_text("main"))
        page.unroute("**/v1/answers")
    assert page.is_hidden("#answer")


def test_the_models_own_answer_comes_to_an_end(visit):
    page = visit("?q=saw")
    page.wait_for_selector(HITS)
    page.click("#answer-button")
    page.wait_for_selector("#answer-stop", state="hidden")
    assert page.inner_text("#answer-text").strip()
    assert page.locator("#answer-text[aria-busy]").count() == 0


def test_files_are_added_and_a_document_is_deleted_and_put_back(visit, tmp_path):
    (tmp_path / "new.md").write_text("A wrench turns.\n")
    (tmp_path / "bad.pdf").write_bytes(b"no pdf")
    page = visit("?q=wrench&mode=lexical")
    wait_for_status(page, "No hits")
    before = page.inner_text("#index option")
    page.click("#add-files")
    page.click("#files-send")
    assert page.inner_text("#files-note") == "Choose files first."
    page.set_input_files("#files", [tmp_path / "new.md", tmp_path / "bad.pdf"])
    page.click("#files-send")
    until(lambda: "added" in page.inner_text("#files-note"))
    assert page.inner_text("#files-note").startswith("1 chunk added; bad.pdf was skipped: ")
    page.keyboard.press("Escape")
    page.wait_for_selector("#files-dialog", state="hidden")
    page.wait_for_selector(HITS)
    assert page.inner_text("#index option") != before
    assert ids(page) == ["new.md#0"]
    page.click(f"{HITS} .title")
    page.click(f"{HITS} .remove")
    page.keyboard.press("Escape")
    assert page.locator(HITS).count() == 1
    page.click(f"{HITS} .remove")
    assert "new.md#0" in page.inner_text("#remove-note")
    page.click("#remove-dialog button.danger")
    wait_for_status(page, "new.md#0 was deleted.")
    assert page.locator(HITS).count() == 0
    page.click("#status button")
    page.wait_for_selector(HITS)
    assert ids(page) == ["new.md#0"]
    page.click(f"{HITS} .title")
    page.click(f"{HITS} .remove")
    page.click("#remove-dialog button.danger")
    wait_for_status(page, "new.md#0 was deleted.")


def test_a_key_is_asked_for_and_decides_what_is_offered(visit):
    page = visit("?q=saw", keyed=["keyed"])
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "wrong-key")
    page.press("#key", "Enter")
    until(lambda: "does not accept" in page.inner_text("#key-note"))
    page.keyboard.press("Escape")
    page.wait_for_selector("#key-dialog", state="hidden")
    page.click("#change-key")
    page.fill("#key", "reader-key")
    page.press("#key", "Enter")
    page.wait_for_selector(HITS)
    assert page.is_hidden("#add-files")
    assert page.is_hidden("#answer-button")
    assert page.is_hidden("#reranking")
    page.click(f"{HITS} .title >> nth=0")
    assert page.is_hidden(f"{HITS} .remove >> nth=0")
    assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.getItem('key')]") == [0, "", "reader-key"]
    assert "reader-key" not in page.content()
    page.reload()
    page.wait_for_selector(HITS)
    page.click("#change-key")
    page.fill("#key", "writer-key")
    page.press("#key", "Enter")
    page.wait_for_selector("#add-files")
    other = visit("", keyed=["keyed"])
    other.wait_for_selector("#key-dialog[open]")


def test_hostile_documents_do_nothing(visit):
    page = visit("?q=saw&k=50")
    page.wait_for_selector(HITS)
    hit = page.locator(HITS).nth(ids(page).index(NASTY))
    hit.locator(".title").click()
    hit.locator("details summary").click()
    assert NASTY in hit.locator(".title").inner_text()
    assert NASTY in hit.locator(".metadata").inner_text()
    assert "<script>window.hacked = 1</script>" in hit.locator(".text").inner_text()
    assert hit.locator("img, script, iframe, style, form, .text svg").count() == 0
    links = hit.locator(".text a").evaluate_all("links => links.map((link) => [link.href, link.rel])")
    assert links == [["https://good.example/", "noopener noreferrer"]]
    page.wait_for_timeout(300)


def test_hostile_html_of_the_server_itself_does_nothing(visit):
    html = (
        "<img src='/x.png' onerror='window.hacked=1'><script>window.hacked=2</script><p onclick='window.hacked=3'>a"
        "<a href='javascript:window.hacked=4' id='form' class='x'>b</a><svg><script>window.hacked=5</script></svg></p>"
        "<math><mtext><img src=x onerror=window.hacked=6></mtext></math><span class='danger' id='hits'>c</span>"
        "<template><img src=x onerror=window.hacked=7></template><noscript><img src=x></noscript><base href='http://evil'>"
    )
    hit = {"rank": 1, "score": 1.0, "relevance": 0.5, "parts": {"dense": 0.5}, "id": "a", "text": "a", "metadata": {}}
    body = json.dumps({"query": "saw", "milliseconds": 1, "hits": [hit | {"html": html}]})
    page = visit()
    until(lambda: page.input_value("#index") == "tools")
    page.route("**/v1/search", lambda route: route.fulfill(content_type="application/json", body=body))
    page.fill("#query", "saw")
    page.press("#query", "Enter")
    page.click(f"{HITS} .title")
    assert page.inner_text(f"{HITS} .text").split() == ["ab", "c"]
    names = "nodes => nodes.flatMap((node) => [...node.attributes].map((one) => `${node.tagName} ${one.name}`))"
    assert page.eval_on_selector_all(f"{HITS} .text *", names) == []
    page.click(f"{HITS} .text a")
    page.wait_for_timeout(300)


def test_dark_and_light_differ_and_are_read_from_the_system(visit):
    papers = []
    for scheme in ("light", "dark"):
        page = visit("?q=saw", color_scheme=scheme)
        page.wait_for_selector(HITS)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_not_scroll_sideways(visit, width):
    where = {"$not": {"colour": "a very long value that no phone has room for in one line"}}
    page = visit("?q=saw&k=50&where=" + quote(json.dumps(where)), viewport={"width": width, "height": 844})
    page.wait_for_selector(HITS)
    page.locator("#facets summary").click()
    for i in range(page.locator(HITS).count()):
        page.locator(f"{HITS} .title").nth(i).click()
    for summary in page.locator(".whole details summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"viewport": {"width": 1200, "height": 900}}], ids=["phone", "desktop"])
def test_axe_finds_nothing_serious(visit, scheme, size):
    if not AXE.is_file():
        pytest.skip(f"no axe-core: npm install axe-core, or name its axe.min.js in AXE_CORE ({AXE} is not there)")
    page = visit("?q=saw+cuts&k=50&where=" + quote('{"text": {"$exists": false}}'), color_scheme=scheme, **size)
    page.wait_for_selector(HITS)
    page.locator(f"{HITS} .title").nth(ids(page).index(NASTY)).click()
    page.locator(f"{HITS} .around:visible").first.click()
    page.wait_for_selector("section.own")
    page.click("#answer-button")
    page.wait_for_selector("#answer-stop", state="hidden")
    page.evaluate(AXE.read_text(encoding="utf-8") + "; undefined")
    for dialog in (None, "files-dialog", "remove-dialog", "key-dialog"):
        if dialog is not None:
            page.evaluate("name => { document.querySelectorAll('dialog[open]').forEach((one) => one.close());"
                          " document.getElementById(name).showModal(); }", dialog)  # fmt: skip
        found = page.evaluate("async () => (await axe.run()).violations.map((one) => [one.impact, one.id,"
                              " one.nodes.map((node) => node.target.join(' ') + ' ' + node.failureSummary)])")  # fmt: skip
        assert [one for one in found if one[0] in ("serious", "critical")] == [], dialog
