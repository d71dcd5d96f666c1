"""Several processes give what one gives, in order, tell what went wrong, and leave no process behind."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from tests import tiny
from tp_retrieval import Embedder, InputError, ModelNotFoundError, WorkerError
from tp_retrieval.embedding.embedder import _load_again
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.embedding.workers import embedded

TEXTS = [f"Text {i % 70} is about {'a longer thing ' * (i % 9)}and number {i}." for i in range(90)]
TEXTS[7] = TEXTS[50]


@pytest.mark.parametrize("role", ["queries", pytest.param("documents", marks=pytest.mark.slow)])
def test_two_processes_give_what_one_gives_in_order(embedder, role):
    embed = getattr(embedder, f"embed_{role}")
    assert np.allclose(embed(TEXTS, processes=2), embed(TEXTS), atol=1e-5)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_another_process_of_the_same_parent_is_left_alone(embedder):
    parts = embedded(partial(_load_again, *embedder._source()), "cpu", TEXTS, "document", 2)
    next(parts)
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        assert len(list(parts)) > 0
        assert multiprocessing.active_children() == [other]
    finally:
        other.kill()
        other.join()


@pytest.mark.slow
def test_mapped_and_unit_vectors(embedder):
    fitted, unit = embedder.fit(TEXTS), UnitEmbedder.of(embedder)
    for one in (fitted, unit):
        assert np.allclose(one.embed_documents(TEXTS[:40], processes=2), one.embed_documents(TEXTS[:40]), atol=1e-5)


@pytest.mark.slow
def test_what_is_cut_is_told_by_the_one_who_asked(embedder):
    long = "word " * 3000
    with pytest.warns(match=r"1 of 40 texts were cut to max_tokens"):
        embedder.embed_documents([*TEXTS[:39], long], processes=2)


def test_one_text_and_none_need_no_process(embedder, monkeypatch):
    monkeypatch.setattr("tp_retrieval.embedding.embedder.embedded", None)
    assert embedder.embed_documents([], processes=3).shape == (0, embedder.dimension)
    assert np.allclose(embedder.embed_documents(["one"], processes=3), embedder.embed_documents(["one"]))


@pytest.mark.parametrize("processes", [0, -1, 1.5, True, "2"])
def test_a_number_of_processes_that_is_none(embedder, processes):
    with pytest.raises(InputError, match="processes: "):
        embedder.embed_documents(TEXTS, processes=processes)


def test_a_model_that_no_other_process_can_load_is_refused(embedder, smol_model):
    from dataclasses import replace

    given = Embedder(replace(embedder.backbone, source=None), embedder.recipe)
    with pytest.raises(InputError, match="processes: the model was given as an object"):
        given.embed_documents(TEXTS, processes=2)


@pytest.mark.slow
def test_what_a_process_raises_is_raised(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "gone")
    embedder = Embedder.from_pretrained(folder, recipe=tiny.RECIPE, dtype="float32", device="cpu")
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFoundError):
        embedder.embed_documents(TEXTS, processes=2)
    assert multiprocessing.active_children() == []


def _kill(texts, role):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_an_error_and_not_a_wait(embedder, monkeypatch):
    monkeypatch.setattr("tp_retrieval.embedding.workers._embed", _kill)
    with pytest.raises(WorkerError, match="one of 2 processes ended"):
        embedder.embed_documents(TEXTS, processes=2)
    assert multiprocessing.active_children() == []


_ENDLESS = """
import sys
from tests import tiny
from tp_retrieval import Embedder
if __name__ == "__main__":
    embedder = Embedder.from_pretrained(sys.argv[1], recipe=tiny.RECIPE, dtype="float32", device="cpu")
    print("begun", flush=True)
    embedder.embed_documents([f"text {i} " * 100 for i in range(100_000)], processes=2)
"""


@pytest.mark.slow
def test_processes_end_when_the_one_that_started_them_is_killed(tiny_folder, tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(_ENDLESS)
    command = [sys.executable, script, tiny_folder("llama")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as parent:
        assert parent.stdout.readline() == "begun\n"
        children = []
        while len(children) < 2:
            time.sleep(0.2)
            children = _workers_of(parent.pid)
        time.sleep(1)  # past the start of Python, and into the work
        parent.kill()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.1)


def _workers_of(parent):
    found = []
    for place in os.listdir("/proc"):
        if place.isdigit():
            try:
                with open(f"/proc/{place}/stat") as file:
                    if int(file.read().rsplit(")", 1)[1].split()[1]) == parent:
                        with open(f"/proc/{place}/cmdline") as line:
                            if "spawn_main" in line.read():
                                found.append(int(place))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
