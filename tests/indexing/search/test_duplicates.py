"""Documents that nearly equal an earlier one, against all cosines in numpy."""

import numpy as np
import pytest

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, InputError
from tp_retrieval.indexing.search import duplicates
from tp_retrieval.indexing.vectors import kinds


def by_numpy(rows, threshold):
    """Return `{row: (earlier row, cosine)}`."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float64)
    cosines = np.tril(unit @ unit.T, -1) + np.triu(np.full((len(rows), len(rows)), -2.0))
    cosines = cosines.round(6)
    return {i: (int(row.argmax()), row.max()) for i, row in enumerate(cosines) if row.max() >= threshold}


def drawn(count, groups, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, ToyEmbedder.dimension))
    noise = 0.2 * rng.standard_normal((count, ToyEmbedder.dimension))
    return (centres[rng.integers(0, groups, count)] + noise).astype(np.float32)


def documents(count):
    return [Document(f"text {i}", {}, str(i)) for i in range(count)]


@pytest.mark.parametrize("kind", ["flat", "scan"])
@pytest.mark.parametrize("threshold", [0.9, 0.99, 1.0])
@pytest.mark.parametrize("blocks", [(7, 16), (64, 50), (2048, 8192)])
def test_duplicates_are_those_of_numpy(tmp_path, monkeypatch, kind, threshold, blocks):
    monkeypatch.setattr(duplicates, "_ROWS", blocks[0])
    monkeypatch.setattr(duplicates, "_EARLIER", blocks[1])
    monkeypatch.setattr(kinds, "TRAIN_AT", 320)
    rows = drawn(360, 40)
    rows[[50, 60, 70]] = rows[5]  # equal ones name the first of them
    with Index.create(tmp_path / "i", ToyEmbedder(), kind=kind) as index:
        index.add(documents(360), vectors=rows)
        index.wait_until_built()
        found = index.duplicates(threshold)
        want = by_numpy(rows, threshold)
        assert {int(one.id): int(one.of) for one in found} == {row: of for row, (of, _) in want.items()}
        scores = [one.score for one in found]
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx([want[int(one.id)][1] for one in found], abs=2e-6)
        assert {one.id: one.of for one in found if one.id in ("50", "60", "70")} == dict.fromkeys(("50", "60", "70"), "5")


def test_what_is_left_after_deleting_duplicates_has_one_of_each_group(tmp_path):
    rows = np.repeat(drawn(20, 20), 5, axis=0)
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        index.add(documents(100), vectors=rows)
        index.delete([one.id for one in index.duplicates(0.999)])
        assert [document.id for document in index] == [str(i) for i in range(0, 100, 5)]
        assert index.duplicates(0.999) == []


def test_an_empty_index_has_no_duplicates_and_a_threshold_that_is_none_is_refused(tmp_path):
    with Index.create(tmp_path / "i", ToyEmbedder()) as index:
        assert index.duplicates() == []
        for threshold in (1.5, -2, "high", float("nan"), None):
            with pytest.raises(InputError, match="threshold"):
                index.duplicates(threshold)
