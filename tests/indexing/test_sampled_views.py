"""An index whose second view is read of a sample of its documents, and predicted for the others."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from tests.toy import WORDS, SampledEmbedder, documents
from tp_retrieval import Document, Index, InputError
from tp_retrieval.embedding.maps.affine import AffineMap, combine, unit
from tp_retrieval.embedding.maps.within import priority_of
from tp_retrieval.types import VectorView

SAMPLE, COUNT = 24, 90
VIEWS = SampledEmbedder.provenance.views


def filled(folder, parts, embedder=None):
    index = Index.create(folder, embedder or SampledEmbedder())
    for part in parts:
        index.add(part)
    return index


def read_ids(index):
    """Return the ids of the documents of which the second view was read."""
    rows = index._store.documents.seqs()
    raw = index._store.documents.vectors_of(rows)
    stored = index._store.documents.by_seq(rows.tolist())
    return {stored[seq].id for seq, vector in zip(rows.tolist(), raw, strict=True) if not np.isnan(vector[-1])}


def lowest(added):
    return {document.id for document in sorted(added, key=lambda document: priority_of(document.text))[:SAMPLE]}


def test_the_second_view_is_read_of_the_documents_of_lowest_priority_and_no_others(tmp_path):
    added = documents(COUNT)
    with filled(tmp_path / "i", [added]) as index:
        assert read_ids(index) == lowest(added)
        assert index.info().fitted == ("within:8", "within:4")
        assert index.info().unread == 0


def test_vectors_are_those_of_an_oracle(tmp_path):
    added = documents(COUNT)
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
        weights = np.linalg.solve(gram, standardised[read].T @ (target - target.mean(0)) / SAMPLE)
        predicted = standardised @ weights + target.mean(0)
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
    with filled(tmp_path / "i", [documents(COUNT)]):
        pass
    with sqlite3.connect(tmp_path / "i/index.sqlite") as database:
        lengths = dict(database.execute("SELECT length(vector), count(*) FROM documents GROUP BY 1"))
    assert lengths == {4 * 32: SAMPLE, 4 * 16: COUNT - SAMPLE}


@pytest.mark.parametrize("size", [1, 7])
def test_documents_added_piecemeal_are_read_if_they_belong_to_the_sample_by_then(tmp_path, size):
    added = documents(COUNT)
    parts = [added[i : i + size] for i in range(0, COUNT, size)]
    with filled(tmp_path / "a", [added]) as once, filled(tmp_path / "b", parts) as parted:
        assert read_ids(parted) >= lowest(added)
        assert len(read_ids(parted)) < COUNT
        assert once._store.stretches.counts() == parted._store.stretches.counts() == {0: COUNT, 1: SAMPLE}
        for index in (once, parted):
            index.rebuild()
        for mine, other in zip(once._store.maps.all(), parted._store.maps.all(), strict=True):
            assert mine.arrays.keys() == other.arrays.keys()
            assert all(np.allclose(mine.arrays[name], other.arrays[name], atol=1e-4) for name in mine.arrays)
        assert parted.verify().problems == ()


def test_parts_read_no_more_than_the_whole_if_what_is_to_come_is_known(tmp_path):
    added = documents(COUNT)
    with filled(tmp_path / "a", [added]) as once, filled(tmp_path / "b", []) as parted:
        with parted.adding([document.text for document in added]):
            for i in range(0, COUNT, 7):
                parted.add(added[i : i + 7])
        assert read_ids(parted) == read_ids(once) == lowest(added)
        parted.add([Document(f"one more {added[0].text}", {}, "later")])
        for index in (once, parted):
            index.delete(["later"])
            index.rebuild()
        for mine, other in zip(once.batches(), parted.batches(), strict=True):
            assert np.allclose(mine[1], other[1], atol=1e-4)


def test_equal_texts_have_equal_vectors_whenever_they_are_added(tmp_path):
    added = documents(COUNT)
    inside, outside = (next(d for d in added if (d.id in lowest(added)) is there) for there in (True, False))
    copies = [Document(inside.text, {}, "copy in"), Document(outside.text, {}, "copy out")]
    with filled(tmp_path / "i", [added, copies]) as index:
        index.rebuild()
        ((stored, vectors),) = index.batches()
        vector = {document.id: row for document, row in zip(stored, vectors, strict=True)}
        assert np.array_equal(vector["copy in"], vector[inside.id])
        assert np.array_equal(vector["copy out"], vector[outside.id])
        assert index._store.stretches.counts() == {0: COUNT, 1: SAMPLE}


class Unmapped(SampledEmbedder):
    provenance = replace(SampledEmbedder.provenance, views=(VectorView(16), VectorView(16, sample=SAMPLE)))


@pytest.mark.parametrize(
    ("embedder", "added"),
    [
        (Unmapped(), documents(COUNT)),
        (SampledEmbedder(), [Document(f"{WORDS[i % 12]}{i}", {}, f"d{i}") for i in range(COUNT)]),  # without stretches
    ],
    ids=["no maps", "texts of one word"],
)
def test_a_view_without_a_map_is_predicted_as_soon_as_documents_are_not_read(tmp_path, embedder, added):
    with filled(tmp_path / "i", [added], embedder) as index:
        ((_, vectors),) = index.batches()
        lengths = np.linalg.norm(vectors[:, -16:], axis=1)
        assert (lengths > 0.3).all()
        assert np.allclose(lengths, lengths[0], atol=1e-4)


def test_a_refused_rebuild_leaves_what_it_read_in_order(tmp_path):
    added = documents(COUNT)
    with filled(tmp_path / "i", [added]) as index:
        index.delete(sorted(read_ids(index)))
    with Index.open(tmp_path / "i", SampledEmbedder()) as index:
        with pytest.raises(InputError, match=f"needs 32 documents that are read for the view, there are {SAMPLE}"):
            index.rebuild(postprocess=["within:8", "whiten:16"])
        found = [hit.document.id for hit in index.search("a dog by the stone", 9, mode="dense")]
        assert index.verify().problems == ()
    with Index.open(tmp_path / "i", SampledEmbedder()) as index:
        assert [hit.document.id for hit in index.search("a dog by the stone", 9, mode="dense")] == found
        assert index.verify().problems == ()


@pytest.mark.parametrize("samples", [(8, None), (None, 7), (None, True), (None, 10**30), (None, 8, None)])
def test_samples_that_no_index_can_keep_are_refused(tmp_path, samples):
    views = tuple(VectorView(16, sample=sample) for sample in samples)
    odd = SampledEmbedder()
    odd.provenance = replace(odd.provenance, views=views)
    with pytest.raises(InputError, match=r"views.sample: \["):
        Index.create(tmp_path / "i", odd)


def test_rebuild_reads_a_sample_whose_documents_were_deleted(tmp_path):
    added, embedder = documents(COUNT), SampledEmbedder()
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
    added, embedder = documents(COUNT), SampledEmbedder()
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
        index.add(documents(COUNT))


@pytest.mark.parametrize("postprocess", ["none", "center", "whiten:4", ["center", "none"]])
def test_every_map_has_a_prediction(tmp_path, postprocess):
    with filled(tmp_path / "i", [documents(COUNT)]) as index:
        index.rebuild(postprocess=postprocess)
        (batch,) = index.batches()
        assert np.allclose(np.linalg.norm(batch[1], axis=1), 1, atol=1e-5)
        parts = batch[1][:, -16:]  # of 24 documents no whitening is fitted
        assert (np.linalg.norm(parts, axis=1) > 0.1).all()
        assert index.verify().problems == ()


def test_a_row_cut_to_another_length_is_damage(tmp_path):
    with filled(tmp_path / "i", [documents(COUNT)]) as index:
        row = index._store.documents._select_rows([1])[0]
        with index._store.transaction():
            from tp_retrieval.sqlite.digest import record_digest

            values = (row.seq, row.id, row.text, row.metadata_json, row.vector[:40])
            index._store.database.execute(
                "UPDATE documents SET vector = ?, digest = ? WHERE seq = 1", (values[-1], record_digest(*values))
            )
        assert any("vector of another length" in problem for problem in index.verify().problems)
