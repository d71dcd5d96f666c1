"""An index whose second view is read of a sample of its documents, and predicted for the others."""

import sqlite3

import numpy as np
import pytest

from tests.toy import StretchEmbedder
from tp_retrieval import Document, Index, InputError
from tp_retrieval.embedding.maps.affine import AffineMap, combine, unit
from tp_retrieval.embedding.maps.within import priority_of
from tp_retrieval.types import Provenance, VectorView

WORDS = ("cat", "dog", "house", "tree", "river", "stone", "book", "light", "water", "bread", "train", "cloud")
SAMPLE, COUNT = 24, 90
VIEWS = (VectorView(16, "within:8"), VectorView(16, "within:4", 0.5, asymmetric=True, sample=SAMPLE))


class SampledEmbedder(StretchEmbedder):
    provenance = Provenance("toy", "toy", None, "w", "float32", {"views": []}, VIEWS)


def documents(count=COUNT, seed=0):
    rng = np.random.default_rng(seed)
    return [Document(" ".join(rng.choice(WORDS, 6 + i % 9)) + f" {i}", {}, f"d{i}") for i in range(count)]


def filled(folder, parts, embedder=None):
    index = Index.create(folder, embedder or SampledEmbedder())
    for part in parts:
        index.add(part)
    return index


def read_ids(index):
    """Return the ids of the documents of which the second view was read."""
    rows = index._store.documents.seqs()
    raw = index._store.documents.vectors_of(rows)
    return {id_ for id_, vector in zip(index._store.documents.ids_of(rows), raw, strict=True) if not np.isnan(vector[-1])}


def lowest(added):
    return {document.id for document in sorted(added, key=lambda document: priority_of(document.text))[:SAMPLE]}


def test_the_second_view_is_read_of_the_documents_of_lowest_priority_and_no_others(tmp_path):
    added = documents()
    with filled(tmp_path / "i", [added]) as index:
        assert read_ids(index) == lowest(added)
        assert index.info().fitted == ("within:8", "within:4")
        assert index.info().unread == 0


def test_vectors_are_those_of_an_oracle(tmp_path):
    added = documents()
    with filled(tmp_path / "i", [added]) as index:
        raw = index.embedder.embed_documents([document.text for document in added])
        first, second = (AffineMap(**stored.arrays) for stored in index._store.maps.all())
        read = np.array([document.id in lowest(added) for document in added])
        assert np.allclose(second.mean, raw[read, 16:].mean(axis=0), atol=1e-5)
        target = unit(second(raw[read, 16:])).astype(np.float64)
        source = raw[:, :16].astype(np.float64)
        spread = source[read].std(0)
        standardised = (source - source[read].mean(0)) / np.where(spread > 0, spread, np.inf)
        gram = standardised[read].T @ standardised[read] / SAMPLE + np.eye(16)
        predicted = standardised @ np.linalg.solve(gram, standardised[read].T @ (target - target.mean(0)) / SAMPLE)
        views = unit(first(raw[:, :16])), unit(np.where(read[:, None], second(raw[:, 16:]), predicted))
        expected = unit(np.concatenate([views[0], views[1] * np.sqrt(0.5)], axis=1))
        (batch,) = index.batches()
        assert np.allclose(batch[1], expected, atol=1e-4)
        query = combine(index.embedder.embed_queries(["the cat by the river"]), VIEWS, [first, second], "query")
        hits = index.search("the cat by the river", COUNT, mode="dense")
        assert np.allclose([hit.score for hit in hits], np.sort(expected @ query[0])[::-1], atol=1e-4)
    with Index.open(tmp_path / "i", SampledEmbedder()) as index:
        reopened = index.search("the cat by the river", COUNT, mode="dense")
        assert [hit.document.id for hit in reopened] == [hit.document.id for hit in hits]
        assert index.verify().problems == ()


def test_rows_hold_no_numbers_of_views_that_were_not_read(tmp_path):
    with filled(tmp_path / "i", [documents()]):
        pass
    with sqlite3.connect(tmp_path / "i/index.sqlite") as database:
        lengths = dict(database.execute("SELECT length(vector), count(*) FROM documents GROUP BY 1"))
    assert lengths == {4 * 32: SAMPLE, 4 * 16: COUNT - SAMPLE}


@pytest.mark.parametrize("size", [1, 7])
def test_documents_added_piecemeal_are_read_if_they_belong_to_the_sample_by_then(tmp_path, size):
    added = documents()
    parts = [added[i : i + size] for i in range(0, COUNT, size)]
    with filled(tmp_path / "a", [added]) as once, filled(tmp_path / "b", parts) as parted:
        assert read_ids(parted) >= lowest(added)
        assert len(read_ids(parted)) < COUNT
        assert once._store.stretches.counts() == parted._store.stretches.counts() == {0: COUNT, 1: SAMPLE}
        assert parted.search("a dog by the stone", 3)
        assert parted.verify().problems == ()


def test_rebuild_reads_a_sample_whose_documents_were_deleted(tmp_path):
    added, embedder = documents(), SampledEmbedder()
    with filled(tmp_path / "i", [added], embedder) as index, filled(tmp_path / "other", []) as other:
        index.delete(sorted(read_ids(index)))
        assert index.search("a dog by the stone", 3)  # by the maps as they were
        assert index.info().unread == SAMPLE
        embedder.embedded.clear()
        index.rebuild()
        left = [document for document in added if document.id not in lowest(added)]
        assert read_ids(index) == lowest(left)
        assert len(embedder.embedded) == SAMPLE
        assert index.info().unread == 0
        other.add(left)
        other.rebuild()
        for mine, fresh in zip(index.batches(), other.batches(), strict=True):
            assert np.allclose(mine[1], fresh[1], atol=1e-4)
        assert index.verify().problems == ()


def test_whole_vectors_from_elsewhere_are_taken_and_parts_refused(tmp_path):
    added, embedder = documents(), SampledEmbedder()
    raw = embedder.embed_documents([document.text for document in added])
    with Index.create(tmp_path / "i", embedder) as index:
        index.add(added, vectors=raw)
        assert len(read_ids(index)) == COUNT
        assert index.search("a dog by the stone", 3)
        raw[3, 16:] = np.nan
        with pytest.raises(InputError, match=r"vectors\[3\]: holds NaN"):
            index.add(added, vectors=raw)


def test_an_embedder_that_gives_no_vector_at_all_is_refused(tmp_path):
    class Broken(SampledEmbedder):
        def embed_documents(self, texts):
            return super().embed_documents(texts) * np.float32(np.nan)

    with (
        Index.create(tmp_path / "i", Broken()) as index,
        pytest.raises(InputError, match=r"vectors\[0\]: holds NaN"),
    ):
        index.add(documents())


@pytest.mark.parametrize("postprocess", ["none", "center", "whiten:4", ["center", "none"]])
def test_every_map_has_a_prediction(tmp_path, postprocess):
    with filled(tmp_path / "i", [documents()]) as index:
        index.rebuild(postprocess=postprocess)
        (batch,) = index.batches()
        assert np.allclose(np.linalg.norm(batch[1], axis=1), 1, atol=1e-5)
        parts = batch[1][:, -16:]  # of 24 documents no whitening is fitted
        assert (np.linalg.norm(parts, axis=1) > 0.1).all()
        assert index.verify().problems == ()


def test_a_row_cut_to_another_length_is_damage(tmp_path):
    with filled(tmp_path / "i", [documents()]) as index:
        row = index._store.documents._select_rows([1])[0]
        with index._store.transaction():
            from tp_retrieval.sqlite.digest import record_digest

            values = (*row[:4], row.vector[:40])
            index._store.database.execute(
                "UPDATE documents SET vector = ?, digest = ? WHERE seq = 1", (values[-1], record_digest(*values))
            )
        assert any("vector of another length" in problem for problem in index.verify().problems)
