"""Documents over HTTP against the index itself: added, as lines and files too, read, removed; indexes made and removed."""

import json
import threading
import time

import numpy as np
import pytest

from tests.integrations.server.conftest import TEXTS
from tp_retrieval import Document, Index
from tp_retrieval.integrations.server import Limits, Settings
from tp_retrieval.integrations.server.indexes.jobs import Jobs
from tp_retrieval.integrations.server.indexes.writing import upsert

LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
def server(serving, tmp_path):
    """A server with a folder for indexes, and in it an empty one named notes."""
    client = serving(Settings(data=tmp_path / "data"))
    assert client.post("/v1/indexes", json={"name": "notes", "recipe": "mean"}).status_code == 201
    return client


@pytest.fixture
def stored(server):
    """Return what the index on disk holds."""

    def documents(namespace=""):
        with server.app.state.service.catalog.use("notes", server.app.state.anyone) as index:
            return index.get(namespace=namespace)

    return documents


def add(server, documents, **options):
    return server.post("/v1/indexes/notes/documents", json={"documents": documents}, **options)


def error_of(response):
    return response.status_code, response.json()["error"]["message"]


# -- documents


def test_what_is_added_is_in_the_index_and_found(server, stored):
    given = [{"text": "red apple", "id": "a", "metadata": {"n": 1, "when": {"$date": "2024-05-01"}}}, {"text": "sea"}]
    answer = add(server, given)
    assert answer.status_code == 200
    ids = answer.json()["ids"]
    assert answer.json() == {"ids": ids, "added": 2, "unchanged": 0}
    found = stored()
    assert [(document.id, document.text) for document in found] == [("a", "red apple"), (ids[1], "sea")]
    assert found[0].metadata["when"].isoformat() == "2024-05-01"
    hits = server.post("/v1/search", json={"query": "apple", "index": "notes", "where": {"n": 1}}).json()["hits"]
    assert [hit["id"] for hit in hits] == ["a"]
    assert hits[0]["metadata"] == given[0]["metadata"]


def test_a_document_that_is_there_as_given_is_not_embedded_again(server, stored, monkeypatch):
    given = [{"text": f"text {i}", "id": f"d{i}", "metadata": {"n": i}} for i in range(5)]
    add(server, given)
    added = []
    original = Index.add
    monkeypatch.setattr(
        Index, "add", lambda self, documents, **more: added.extend(documents) or original(self, documents, **more)
    )
    assert add(server, given).json() == {"ids": [f"d{i}" for i in range(5)], "added": 0, "unchanged": 5}
    given[3]["metadata"] = {"n": True}
    given[4]["text"] = "another"
    assert add(server, given).json()["added"] == 2
    assert [document.id for document in added] == ["d3", "d4"]
    assert [document.text for document in stored()][-1] == "another"


def test_lines_of_any_length_are_stored_as_they_come(server, stored):
    lines = b"\n".join(json.dumps({"text": f"line {i}", "metadata": {"n": i}}).encode() for i in range(200))

    def parts():
        for begin in range(0, len(lines), 777):
            yield lines[begin : begin + 777]

    answer = server.post("/v1/indexes/notes/documents", content=parts(), headers=LINES | {"idempotency-key": "k"})
    assert answer.json()["ids"] == [f"k-{i}" for i in range(200)]
    assert [document.metadata["n"] for document in stored()] == list(range(200))
    job = server.get("/v1/jobs/k").json()
    assert (job["state"], job["done"], job["result"]["added"]) == ("done", 200, 200)


def test_a_body_longer_than_a_request_may_be_is_stored_as_lines(serving, tmp_path):
    client = serving(Settings(Limits(body_bytes=2000), data=tmp_path / "data"))
    client.post("/v1/indexes", json={"name": "notes", "recipe": "mean"})
    lines = "\n".join(json.dumps({"text": f"line {i} of many"}) for i in range(300))
    assert len(lines) > 8000
    assert client.post("/v1/indexes/notes/documents", content=lines, headers=LINES).json()["added"] == 300
    long = json.dumps({"text": "x" * 5000})
    status, message = error_of(
        client.post("/v1/indexes/notes/documents", content=iter([long[:2500].encode(), b"x" * 2500]), headers=LINES)
    )
    assert (status, message) == (413, "a line has over 2000 bytes; it may have no more")


def test_a_wrong_line_is_named_and_what_came_before_stays(server, stored):
    good = "\n".join(json.dumps({"text": f"line {i}"}) for i in range(64))
    body = f'{good}\n{{"text": "one more"}}\n{{"words": 1}}\n'
    status, message = error_of(
        server.post("/v1/indexes/notes/documents", content=body, headers=LINES | {"idempotency-key": "k"})
    )
    assert (status, message) == (400, "line 66: text: Field required")
    assert len(stored()) == 64
    job = server.get("/v1/jobs/k").json()
    assert (job["state"], job["error"]) == ("failed", "line 66: text: Field required; 64 documents were stored before")
    mended = body.replace('{"words": 1}', '{"text": "the last"}')
    again = server.post("/v1/indexes/notes/documents", content=mended, headers=LINES | {"idempotency-key": "k"}).json()
    assert (again["added"], again["unchanged"]) == (2, 64)
    assert len(stored()) == 66


def test_the_same_key_gives_the_same_documents_once(server, stored):
    body = [{"text": "a"}, {"text": "b"}]
    first = add(server, body, headers={"idempotency-key": "k"}).json()
    assert first == {"ids": ["k-0", "k-1"], "added": 2, "unchanged": 0}
    again = add(server, body, headers={"idempotency-key": "k"}).json()
    assert again == {"ids": ["k-0", "k-1"], "added": 0, "unchanged": 2}
    server.delete("/v1/indexes/notes/documents", params={"ids": ["k-1"]})
    assert add(server, body, headers={"idempotency-key": "k"}).json()["added"] == 1, "what is gone comes back"
    assert add(server, [{"text": "c"}], headers={"idempotency-key": "k"}).json()["added"] == 1, "nothing is passed over"
    assert [document.text for document in stored()] == ["b", "c"]
    server.delete("/v1/indexes/notes")
    server.post("/v1/indexes", json={"name": "notes", "recipe": "mean"})
    assert add(server, body, headers={"idempotency-key": "k"}).json()["added"] == 2
    assert error_of(add(server, [{"text": "a"}], headers={"idempotency-key": ""}))[0] == 400
    assert server.get("/v1/jobs/k").json()["state"] == "done"
    assert add(server, body, headers={"idempotency-key": "a/b"}).status_code == 200
    assert server.get("/v1/jobs/a/b").json()["state"] == "done"


def test_a_key_of_running_work_is_joined_or_refused(server):
    from tp_retrieval.integrations.server.errors import RequestError

    jobs, anyone = server.app.state.service.jobs, server.app.state.anyone
    job, _ = jobs.open("documents", "notes", anyone, "k", b"content")
    assert jobs.open("documents", "notes", anyone, "k", b"content") == (job, False)
    for other in (("files", "notes", b"content"), ("documents", "more", b"content"), ("documents", "notes", b"other")):
        with pytest.raises(RequestError, match="the idempotency key 'k' is that of other work, which still runs"):
            jobs.open(other[0], other[1], anyone, "k", other[2])
    waiting = threading.Thread(target=job.wait)
    waiting.start()
    job.finish()
    waiting.join(10)
    assert not waiting.is_alive()


def test_other_content_of_a_key_whose_work_runs_is_refused_and_equal_content_joins(server):
    """The work is held by a job thread that does not go on, so that what is asked meanwhile finds it running."""
    jobs, go = server.app.state.service.jobs, threading.Event()
    for _ in range(2):  # all threads there are
        jobs.start(jobs.open("documents", "notes", server.app.state.anyone, None, b"")[0], lambda job: go.wait(30) and {})
    headers, left = {"idempotency-key": "k"}, {"wait": False}
    try:
        body = [{"text": "a"}]
        first = add(server, body, headers=headers, params=left)
        assert (first.status_code, first.json()["state"]) == (202, "running")
        assert add(server, body, headers=headers, params=left).json()["id"] == "k"
        lines = server.post("/v1/indexes/notes/documents", content='{"text": "b"}', headers=LINES | headers)
        for refused in (add(server, [{"text": "b"}], headers=headers), lines):
            assert error_of(refused) == (409, "the idempotency key 'k' is that of other work, which still runs")
        headers = {"idempotency-key": "files"}
        path, one, other = "/v1/indexes/notes/files", [("files", ("a.txt", b"one"))], [("files", ("a.txt", b"other"))]
        assert server.post(path, files=one, headers=headers, params=left).status_code == 202
        assert server.post(path, files=one, headers=headers, params=left).status_code == 202
        assert server.post(path, files=other, headers=headers, params=left).status_code == 409
    finally:
        go.set()


def test_work_that_the_servers_end_prevents_has_failed_and_holds_nobody():
    from tp_retrieval.integrations.server.access import ApiKey

    jobs, anyone, begun, go = Jobs(), ApiKey(""), threading.Event(), threading.Event()

    def slow(job):
        begun.set()
        go.wait(10)
        return {}

    made = [jobs.open("documents", "i", anyone, str(number), b"")[0] for number in range(4)]
    for job in made:
        jobs.start(job, slow)
    begun.wait(10)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    for job in made[2:]:
        job.wait()
        assert (job.state, job.error) == ("failed", "the server ended before the work began")
    go.set()
    closing.join(10)
    assert [job.state for job in made[:2]] == ["done", "done"]


def test_a_body_is_no_longer_than_it_may_be_whatever_it_is_called(serving, tmp_path):
    client = serving(Settings(Limits(body_bytes=1000), data=tmp_path / "data"))
    client.post("/v1/indexes", json={"name": "notes", "recipe": "mean"})
    body = json.dumps({"documents": [{"text": "x" * 2000}]})
    path = "/v1/indexes/notes/documents"
    for kind in ("application/json", "multipart/form-data", "text/plain", ""):
        assert client.post(path, content=body, headers={"content-type": kind}).status_code == 413
    twice = [("content-type", "application/json"), ("content-type", "application/x-ndjson")]
    assert error_of(client.post(path, content=body, headers=twice)) == (400, "the header Content-Type stands there twice")
    files = "/v1/indexes/notes/files"
    assert client.post(files, content=body, headers={"content-type": "application/x-ndjson"}).status_code == 413


def test_long_work_is_left_and_looked_for_again(server, stored):
    answer = add(server, [{"text": f"text {i}"} for i in range(150)], params={"wait": False})
    assert answer.status_code == 202
    job = answer.json()
    assert (job["kind"], job["index"], job["total"]) == ("documents", "notes", 150)
    while (now := server.get(f"/v1/jobs/{job['id']}").json())["state"] == "running":
        time.sleep(0.01)
    assert (now["state"], now["done"], now["result"]["added"]) == ("done", 150, 150)
    assert len(stored()) == 150
    assert error_of(server.get("/v1/jobs/unknown"))[0] == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body: "),
        (b'{"documents": {}}', "documents: "),
        (b'{"documents": [{"id": "a"}]}', "documents.0.text: Field required"),
        (b'{"documents": [{"text": "a", "id": "x"}, {"text": "b", "id": "x"}]}', "documents[1].id: 'x' is documents[0].id"),
        (b'{"documents": [{"text": "a", "metadata": {"$date": 1}}]}', "documents[0].metadata: the key '$date'"),
        (b'{"documents": [{"text": "\\ud800"}]}', "documents.0.text"),
    ],
)
def test_a_wrong_document_is_named_and_nothing_is_added(server, stored, body, message):
    response = server.post("/v1/indexes/notes/documents", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert message in response.json()["error"]["message"] or message == "documents.0.text"
    assert stored() == []


def test_limits_are_those_of_other_requests(serving, tmp_path):
    client = serving(Settings(Limits(texts=2, characters=10), data=tmp_path / "data"))
    client.post("/v1/indexes", json={"name": "notes", "recipe": "mean"})
    assert error_of(add(client, [{"text": "a"}] * 3)) == (413, "documents: 3; one request may have 2")
    assert error_of(add(client, [{"text": "x" * 11}])) == (
        413,
        "documents[0].text: 11 characters; a text may have 10",
    )


# -- reading and removing


def test_documents_are_read_by_id_by_filter_and_in_pages(server):
    add(server, [{"text": f"t{i}", "id": f"d{i}", "metadata": {"n": i}} for i in range(7)])
    path = "/v1/indexes/notes/documents"
    page = server.get(path, params={"limit": 3}).json()
    assert ([one["id"] for one in page["documents"]], page["next_offset"]) == (["d0", "d1", "d2"], 3)
    last = server.get(path, params={"limit": 3, "offset": 6}).json()
    assert ([one["id"] for one in last["documents"]], last["next_offset"]) == (["d6"], None)
    assert server.get(path, params={"limit": 7}).json()["next_offset"] is None
    named = server.get(path, params={"ids": ["d5", "nowhere", "d1"]}).json()["documents"]
    assert named == [{"id": f"d{i}", "text": f"t{i}", "metadata": {"n": i}} for i in (5, 1)]
    fitting = server.get(path, params={"where": '{"n": {"$lt": 2}}'}).json()["documents"]
    assert [one["id"] for one in fitting] == ["d0", "d1"]
    assert error_of(server.get(path, params={"where": "{"}))[0] == 400
    assert error_of(server.get(path, params={"where": "[]"})) == (400, "where: must be a JSON object")
    assert error_of(server.get(path, params={"where": '{"n": {"$no": 1}}'}))[0] == 400
    assert error_of(server.get("/v1/indexes/nowhere/documents")) == (
        404,
        "index: 'nowhere' is not served here; there are things, notes",
    )


def test_documents_are_removed_by_id_by_filter_and_all(server, stored):
    add(server, [{"text": f"t{i}", "id": f"d{i}", "metadata": {"n": i}} for i in range(7)])
    path = "/v1/indexes/notes/documents"
    assert server.delete(path, params={"ids": ["d0", "nowhere"]}).json() == {"removed": 1}
    assert server.delete(path, params={"where": '{"n": {"$gte": 5}}'}).json() == {"removed": 2}
    assert server.delete(path, params={"ids": ["d1", "d2"], "where": '{"n": 2}'}).json() == {"removed": 1}
    assert [document.id for document in stored()] == ["d1", "d3", "d4"]
    for params in ({}, {"where": "{}"}, {"ids": ["d1"], "all": True}):
        assert error_of(server.delete(path, params=params))[0] == 400
    assert server.delete(path, params={"all": True}).json() == {"removed": 3}


def test_a_namespace_is_seen_by_those_who_name_it(server, stored):
    add(server, [{"text": "ours", "id": "a"}])
    server.post("/v1/indexes/notes/documents", json={"documents": [{"text": "theirs", "id": "a"}], "namespace": "t"})
    server.post("/v1/indexes/notes/documents", params={"namespace": "t"}, content='{"text": "theirs too"}', headers=LINES)
    path = "/v1/indexes/notes/documents"
    assert [d["text"] for d in server.get(path).json()["documents"]] == ["ours"]
    assert [d["text"] for d in server.get(path, params={"namespace": "t"}).json()["documents"]] == ["theirs", "theirs too"]
    assert server.get("/v1/indexes/notes").json()["namespaces"] == {"": 1, "t": 2}
    found = server.post("/v1/search", json={"query": "theirs", "index": "notes", "namespace": "t"}).json()["hits"]
    assert {hit["text"] for hit in found} == {"theirs", "theirs too"}
    assert server.delete(path, params={"all": True, "namespace": "t"}).json() == {"removed": 2}
    assert len(stored()) == 1


# -- files


def test_files_are_read_cut_and_replaced_by_name(server, stored):
    files = [("files", ("docs/a.md", b"# One\n\nApples are red.")), ("files", ("b.txt", b"The sea is wide."))]
    files.append(("files", ("broken.pdf", b"no pdf")))
    answer = server.post("/v1/indexes/notes/files", files=files)
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert (report["added"], report["removed"], report["unchanged_files"]) == (2, 0, 0)
    assert [one["path"] for one in report["skipped"]] == ["broken.pdf"]
    assert "/tmp" not in report["skipped"][0]["reason"]
    assert [document.id for document in stored()] == ["b.txt#0", "docs/a.md#0"]
    assert stored()[1].metadata["headings"] == ["One"]
    hit = server.post("/v1/search", json={"query": "apples", "index": "notes", "mode": "lexical"}).json()["hits"][0]
    assert (hit["metadata"]["path"], hit["metadata"]["line"]) == ("docs/a.md", 1)
    again = [("files", ("docs/a.md", b"# One\n\nApples are green.")), files[1]]
    report = server.post("/v1/indexes/notes/files", files=again).json()
    assert (report["added"], report["removed"], report["unchanged_files"]) == (1, 0, 1)
    assert [document.text for document in stored()] == ["The sea is wide.", "# One\n\nApples are green."]
    hidden = [("files", (name, b"words of it")) for name in (".gitignore", ".hidden.md", "d/.x/c.md", "b.bin")]
    report = server.post("/v1/indexes/notes/files", files=[*hidden, ("files", ("c.txt", b"c"))]).json()
    assert (report["added"], [one["path"] for one in report["skipped"]]) == (4, ["b.bin"])
    only = server.post("/v1/indexes/notes/files", files=[("files", ("x.bin", b"\0"))]).json()
    assert [one["reason"] for one in only["skipped"]] == ["no reader for .bin"]
    assert server.app.state.service.catalog._served["notes"].index.file_settings() is None


@pytest.mark.parametrize("name", ["../a.txt", "/etc/a.txt", "a/../../b.txt", "C:/a.txt", "..\\a.txt"])
def test_a_file_of_no_place_of_its_own_is_refused(server, stored, name):
    response = server.post("/v1/indexes/notes/files", files=[("files", (name, b"text"))])
    assert (response.status_code, stored()) == (400, [])


def test_uploads_are_bounded(serving, tmp_path):
    client = serving(Settings(Limits(upload_bytes=1000, files=2), data=tmp_path / "data"))
    client.post("/v1/indexes", json={"name": "notes", "recipe": "mean"})
    big = client.post("/v1/indexes/notes/files", files=[("files", ("a.txt", b"x " * 1000))])
    assert error_of(big) == (413, "the files have over 1000 bytes; send them in several requests")
    many = [("files", (f"{i}.txt", b"x")) for i in range(3)]
    assert client.post("/v1/indexes/notes/files", files=many).status_code == 400
    assert client.post("/v1/indexes/notes/files", data={"a": "b"}).status_code == 400


# -- indexes


def test_an_index_is_made_described_served_again_and_removed(server, serving, tmp_path):
    made = server.post("/v1/indexes", json={"name": "more", "recipe": "mean", "tokenizer": "trigram", "kind": "flat"})
    assert made.status_code == 201
    assert (made.json()["tokenizer"], made.json()["kind"], made.json()["documents"]) == ("trigram", "flat", 0)
    for name in ("more", "things", "../x", "", "a/b", ".hidden"):
        assert server.post("/v1/indexes", json={"name": name}).status_code in (400, 409)
    assert error_of(server.post("/v1/indexes", json={"name": "x", "recipe": "nowhere"}))[0] == 400
    assert error_of(server.post("/v1/indexes", json={"name": "x", "recipe": "/etc/passwd.json"}))[0] == 400
    assert error_of(server.post("/v1/indexes", json={"name": "x", "kind": "nonsense"}))[0] == 400
    server.post("/v1/indexes/more/documents", json={"documents": [{"text": "kept"}]})
    (tmp_path / "data" / "more" / "notes.txt").write_text("another's")
    names = [one["name"] for one in server.get("/v1/indexes").json()["data"]]
    assert names == ["things", "notes", "more"]
    assert server.delete("/v1/indexes/more").status_code == 204
    assert server.get("/v1/indexes/more").status_code == 404
    left = [path.name for path in (tmp_path / "data").rglob("*.txt")]
    assert left == ["notes.txt"], "files of others stay"
    assert error_of(server.delete("/v1/indexes/things"))[0] == 403


def test_indexes_are_there_when_the_server_starts_again(whole, tmp_path, serving):
    first = serving(Settings(data=tmp_path / "data"))
    first.post("/v1/indexes", json={"name": "notes", "recipe": "mean"})
    add(first, [{"text": "kept", "id": "a"}])
    first.__exit__(None, None, None)
    again = serving(Settings(data=tmp_path / "data"))
    assert again.get("/v1/indexes/notes/documents").json()["documents"][0]["text"] == "kept"
    (tmp_path / "data" / ".removed-1").mkdir()
    third = serving(Settings(data=tmp_path / "data"))
    assert not (tmp_path / "data" / ".removed-1").exists()
    assert third.get("/v1/indexes/notes").json()["documents"] == 1


def test_links_and_damage_in_the_folder_are_left_alone(serving, whole, tmp_path, caplog):
    with Index.create(tmp_path / "precious", whole) as index:
        index.add(["kept"])
    (tmp_path / "data" / "damaged").mkdir(parents=True)
    (tmp_path / "data" / "damaged" / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (tmp_path / "data" / "link").symlink_to("../precious")
    (tmp_path / "data" / ".removed-1").symlink_to("../precious")
    client = serving(Settings(data=tmp_path / "data"))
    assert [one["name"] for one in client.get("/v1/indexes").json()["data"]] == ["things"]
    assert client.delete("/v1/indexes/link").status_code == 404
    assert "damaged is not served" in caplog.text
    with Index.open(tmp_path / "precious", whole) as index:
        assert len(index) == 1


def test_without_a_folder_no_index_is_made(client):
    assert error_of(client.post("/v1/indexes", json={"name": "x"})) == (
        403,
        "this server makes no indexes; start it with --data FOLDER",
    )


def test_an_index_is_removed_when_nobody_uses_it_any_more(server):
    catalog, anyone = server.app.state.service.catalog, server.app.state.anyone
    with catalog.use("notes", anyone) as index:
        remover = threading.Thread(target=catalog.remove, args=("notes", anyone))
        remover.start()
        time.sleep(0.05)
        assert remover.is_alive()
        assert index.search("still open", mode="lexical") == []
    remover.join(10)
    assert not remover.is_alive()


# -- what stands below


def test_maps_of_documents_that_a_server_embeds_are_those_of_an_index(server, whole, tmp_path):
    texts = [f"{text} {i}" for i in range(8) for text in TEXTS]
    server.post("/v1/indexes", json={"name": "mapped"})
    server.post("/v1/indexes/mapped/documents", json={"documents": [{"text": t, "id": t} for t in texts]})
    with Index.create(tmp_path / "alone", whole) as alone:
        upsert(alone, [Document(text, id=text) for text in texts], "")
        found = server.post("/v1/search", json={"query": "whale", "index": "mapped", "mode": "dense"}).json()["hits"]
        want = alone.search("whale", 10, mode="dense")
        assert np.allclose([hit["score"] for hit in found], [hit.score for hit in want], atol=1e-4)


def test_jobs_are_forgotten_in_the_order_of_their_end(monkeypatch):
    from tp_retrieval.integrations.server.access import ApiKey
    from tp_retrieval.integrations.server.errors import RequestError
    from tp_retrieval.integrations.server.indexes import jobs as module

    monkeypatch.setattr(module, "_KEPT", 3)
    jobs, anyone = Jobs(), ApiKey("")
    for number in range(6):
        job, new = jobs.open("documents", "i", anyone, str(number), b"")
        assert new
        jobs.perform(job, lambda job: {})
    assert jobs.get("5", anyone).state == "done"
    with pytest.raises(RequestError, match="there is no job '0'"):
        jobs.get("0", anyone)
    with pytest.raises(RequestError, match="there is no job '5'"):
        jobs.get("5", ApiKey("another's"))
    jobs.close()
