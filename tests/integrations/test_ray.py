"""A corpus embedded by workers on Ray: what one process gives, each id once, whatever is killed; and loaded again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import tiny
from tp_retrieval import Document, Embedder, IncompatibleIndexError, Index, InputError
from tp_retrieval.integrations import parquet
from tp_retrieval.integrations.corpus import Slice, check_rows, documents_of, slices

COMMAND = [str(Path(sys.executable).with_name("tp-retrieval")), "embed-corpus"]


@pytest.fixture
def corpus(tmp_path):
    """A .jsonl file of 200 passages."""
    file = tmp_path / "corpus.jsonl"
    rows = [{"id": f"d{i}", "text": f"Passage {i} " + "goes on " * (i % 40), "number": i} for i in range(200)]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return file


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(tiny.RECIPE.to_json())
    return file


def rows_of(slices):
    return [(document.id, document.text, dict(document.metadata)) for part in slices for document in documents_of(part)]


def test_slices_of_a_jsonl_file_are_the_whole_file_in_order(corpus):
    parts = slices([corpus], 33)
    assert [part.rows for part in parts] == [33] * 6 + [2]
    found = rows_of(parts)
    assert [id_ for id_, _, _ in found] == [f"d{i}" for i in range(200)]
    assert found[150] == ("d150", "Passage 150 " + "goes on " * 30, {"number": 150})
    assert found == [row for part in parts for row in rows_of([part])]


def test_slices_of_a_parquet_file_across_row_groups(tmp_path):
    rows = [{"text": f"Passage {i}", "title": "T" if i % 2 else None, "metadata": {"n": i}} for i in range(25)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", row_group_size=7)
    found = rows_of(slices([tmp_path / "c.parquet"], 10))
    assert [id_ for id_, _, _ in found] == [f"c.parquet#{i}" for i in range(25)]
    assert [text for _, text, _ in found] == [f"T\nPassage {i}" if i % 2 else f"Passage {i}" for i in range(25)]
    assert [known for _, _, known in found] == [{"n": i} for i in range(25)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "row 1: not JSON"),
        ("[1]", "row 1: must be an object, not list"),
        ('{"id": "a"}', 'row 1: must have a string "text"'),
        ('{"text": "a", "metadata": "{"}', "row 1: metadata that JSON can't hold"),
        ('{"text": "a", "metadata": [1]}', "row 1: metadata must be an object, not list"),
        ('{"text": "a", "metadata": "5"}', "row 1: metadata must be an object, not int"),
        ('{"text": "a", "number": NaN}', "row 1: metadata that JSON can't hold"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"text": "good"}}\n{line}\n')
    with pytest.raises(InputError, match=message):
        check_rows([Slice(str(file), file.name, 0, 0, 2)])


def test_files_of_one_name_give_rows_of_different_ids(tmp_path):
    files = [tmp_path / "a" / "c.jsonl", tmp_path / "b" / "c.jsonl"]
    for file in files:
        file.parent.mkdir()
        file.write_text('{"text": "one"}\n{"text": "two"}\n')
    parts = slices(files, 10)
    assert [id_ for id_, _, _ in rows_of(parts)] == ["a/c.jsonl#0", "a/c.jsonl#1", "b/c.jsonl#0", "b/c.jsonl#1"]
    check_rows(parts)
    with pytest.raises(InputError, match=r"the id 'c\.jsonl#0' is given more than once"):
        check_rows(slices([files[0], files[0]], 10))


def test_an_id_given_twice_in_different_files_is_named(tmp_path):
    for name, ids in (("a", range(50)), ("b", range(40, 45))):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"id": {i}, "text": "t"}}\n' for i in ids))
    with pytest.raises(InputError, match=r"b\.jsonl: the id '40' is given more than once"):
        check_rows(slices([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], 7))


def test_shards_are_read_as_they_were_written(embedder, tmp_path):
    documents = [Document(f"text {i}", {"n": i, "nested": {"a": [1, None]}}, f"d{i}") for i in range(5)]
    vectors = embedder.embed_documents([document.text for document in documents])
    parquet.write_shard(tmp_path / "a.parquet", parquet.Shard(documents, vectors, parquet.ShardOrigin.of(embedder)))
    (shard,) = parquet.read_shards(tmp_path)
    assert shard.documents == documents
    assert np.array_equal(shard.vectors, vectors)
    assert shard.made.fingerprint == embedder.fingerprint
    assert pq.read_table(tmp_path / "a.parquet")["fingerprint"].to_pylist() == [embedder.fingerprint] * 5


def test_shards_that_are_none_are_refused(embedder, tmp_path):
    with pytest.raises(InputError, match=r"no folder of \.parquet files"):
        list(parquet.read_shards(tmp_path))
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: not written by"):
        list(parquet.read_shards(tmp_path))
    made = parquet.ShardOrigin.of(embedder)
    vectors = np.zeros((1, made.dimension), dtype=np.float32)
    parquet.write_shard(tmp_path / "a.parquet", parquet.Shard([Document("a", {}, "a")], vectors, made))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"b\.parquet"):
        list(parquet.read_shards(tmp_path))
    other = parquet.ShardOrigin(**{**vars(made), "fingerprint": "other"})
    parquet.write_shard(tmp_path / "b.parquet", parquet.Shard([Document("b", {}, "b")], vectors, other))
    with pytest.raises(InputError, match=r"b\.parquet: made by another embedder"):
        list(parquet.read_shards(tmp_path))
    (tmp_path / parquet.PLAN).write_text(json.dumps({"slices": [{}] * 5}))
    with pytest.raises(InputError, match=r"2 of 5 shards are there; run its `embed-corpus` again"):
        list(parquet.read_shards(tmp_path))


def test_an_index_takes_vectors_of_its_own_embedder_alone(toy, tmp_path):
    with Index.create(tmp_path / "index", toy) as index:
        vectors = toy.embed_documents(["one two", "three"])
        ids = index.add_vectors([Document("one two", {}, "a"), "three"], vectors, fingerprint=toy.fingerprint)
        assert ids[0] == "a"
        assert index.search("one two", 1, mode="dense")[0].score == pytest.approx(1)
        with pytest.raises(IncompatibleIndexError, match=r"fingerprint: stored toy, given other"):
            index.add_vectors(["four"], vectors[:1], fingerprint="other")
        with pytest.raises(InputError, match="shape"):
            index.add_vectors(["four"], vectors, fingerprint=toy.fingerprint)
        assert len(index) == 2


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_an_interrupted_job_goes_on(corpus, recipe, tiny_folder, tmp_path):
    output = tmp_path / "out"
    given = [corpus, "--into", output, "--model", tiny_folder("llama"), "--recipe", recipe, "--dtype", "float32"]
    command = [*COMMAND, *map(str, given), "--shard-rows", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        _wait_for(lambda: len(list(output.glob("*.parquet"))) >= 10, job)
        victim = _workers()[0]
        os.kill(victim, signal.SIGKILL)
        done = json.loads(job.communicate()[0])
    assert (done["rows"], done["shards"], done["skipped"]) == (200, 100, 0)
    _check(output, tiny_folder("llama"))

    removed = sorted(output.glob("*.parquet"))[3:70:9]
    kept = {file: file.stat().st_mtime_ns for file in output.glob("*.parquet") if file not in removed}
    for file in removed:
        file.unlink()
    again = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert again["skipped"] == 100 - len(removed)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    _check(output, tiny_folder("llama"))

    other = subprocess.run([*command, "--chunk-tokens", "64", "--shard-rows", "3"], stderr=subprocess.PIPE, text=True)
    assert other.returncode == 2
    assert "holds another job's shards" in other.stderr
    index = [COMMAND[0], "index", "--from-parquet", str(output), "--into", str(tmp_path / "index"), "--json"]
    loaded = json.loads(subprocess.run(index, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert loaded["documents"] == 200
    with Index.open(tmp_path / "index") as opened:
        assert opened.search("Passage 7", 1, where={"number": 7})[0].document.id == "d7"


@pytest.mark.slow
def test_what_a_worker_raises_is_one_line(recipe, tiny_folder, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "good"}\n{"text": 3}\n')
    given = [file, "--into", tmp_path / "out", "--model", tiny_folder("llama"), "--recipe", recipe]
    done = subprocess.run([*COMMAND, *map(str, given)], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f'tp-retrieval: {file}, row 1: must have a string "text"'


def _wait_for(ready, job):
    while not ready():
        assert job.poll() is None
        time.sleep(0.02)


def _workers():
    """Return the processes of Ray that embed."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                title = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::") and b"_Worker" in title:
                found.append(int(place.name))
    return found


def _check(output, model):
    embedder = Embedder.from_pretrained(model, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    shards = list(parquet.read_shards(output))
    documents = [document for shard in shards for document in shard.documents]
    assert [document.id for document in documents] == [f"d{i}" for i in range(200)]
    want = embedder.embed_documents([document.text for document in documents])
    assert np.allclose(np.concatenate([shard.vectors for shard in shards]), want, atol=1e-5)
    assert not list(output.glob(".shard-*"))
