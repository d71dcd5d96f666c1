"""The log of a tuning run, whose lines are those of earlier versions."""

import json
from dataclasses import replace

import numpy as np

from tp_retrieval.embedding.recipe import Prepend, View
from tp_retrieval.evaluation.tuning.log import PromptResult, TuningLog
from tp_retrieval.evaluation.tuning.prompt_candidates import PromptCandidate
from tp_retrieval.evaluation.tuning.view_search import ViewCandidate

OLD_LINE = (
    '{"key": "k1", "arm": {"name": "a", "query": "Q", "document": "P", "prepend": {"kind": "tp", "start": 1, "stop": 2}}, '
    '"full": true, "seconds": 1.5, "best": [{"views": '
    '[{"exit": 2, "readout": "last", "postprocess": "none", "weight": 0.3}, '
    '{"exit": null, "readout": "mean", "postprocess": "whiten:128", "weight": 0.7}], '
    '"dense_weight": 0.4, "score": 0.51234, "signal": [0.5, 1.0, 0.0]}], '
    '"curves": {"last, none": {"1": 2.0, "None": 3.0}}, "start": null}\n'
)
LINE = (
    OLD_LINE.replace('"weight": 0.3}', '"weight": 0.3, "sample": null}')
    .replace('"weight": 0.7}', '"weight": 0.7, "sample": 512}')
    .replace('"start": null', '"start": null, "frontier": []')
)


def result():
    views = (View(2, "last", "none", 0.3), View(None, "mean", "whiten:128", 0.7, 512))
    best = ViewCandidate(views, 0.4, 0.51234, np.array([0.5, 1, 0]))
    prompt = PromptCandidate("a", "Q", "P", Prepend("tp", 1, 2))
    return PromptResult(prompt, True, 1.5, [best], {"last, none": {"1": 2.0, "None": 3.0}})


def test_a_line_is_written_and_read_again(tmp_path):
    file = tmp_path / "folder" / "arms.jsonl"
    TuningLog(file).append("k1", result())
    assert file.read_text() == LINE
    file.write_text(
        LINE + LINE.replace("k1", "k2").replace('"start": null', f'"start": {json.dumps(json.loads(LINE)["best"][0])}')
    )
    log = TuningLog(file)
    one, two = log.get("k1"), log.get("k2")
    assert (one.prompt, one.full, one.seconds, one.curves) == (result().prompt, True, 1.5, result().curves)
    assert one.best[0].views == result().best[0].views
    assert one.score == 0.51234
    assert np.array_equal(one.best[0].signal, [0.5, 1, 0])
    assert (one.start, two.start.views) == (None, one.best[0].views)
    assert log.get("k3") is None


def test_a_line_of_an_earlier_version_is_read(tmp_path):
    file = tmp_path / "arms.jsonl"
    file.write_text(OLD_LINE)
    read = TuningLog(file).get("k1")
    assert [view.sample for view in read.best[0].views] == [None, None]
    assert read.frontier == []


def test_a_frontier_is_kept(tmp_path):
    file = tmp_path / "arms.jsonl"
    TuningLog(file).append("k", replace(result(), frontier=result().best))
    (point,) = TuningLog(file).get("k").frontier
    assert point.views == result().best[0].views


def test_a_line_cut_short_is_removed_before_the_next(tmp_path):
    file = tmp_path / "arms.jsonl"
    file.write_text(LINE + LINE[:50])
    TuningLog(file).append("k2", result())
    assert file.read_text() == LINE + LINE.replace("k1", "k2")


def test_without_a_file_results_are_in_memory_alone():
    log = TuningLog(None)
    log.append("k", result())
    assert log.get("k").seconds == 1.5
