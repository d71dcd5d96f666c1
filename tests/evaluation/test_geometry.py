"""Anisotropy and effective rank against their definitions."""

import numpy as np
import pytest

from tp_retrieval import InputError, Recipe
from tp_retrieval.embedding.recipe import View
from tp_retrieval.evaluation.geometry import effective_rank, geometry, mean_cosine


def test_mean_cosine_and_effective_rank_are_what_they_are_defined_as():
    vectors = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    assert mean_cosine(vectors) == pytest.approx(cosines[~np.eye(20, dtype=bool)].mean(), abs=1e-6)
    assert effective_rank(np.eye(5, dtype=np.float32)) == pytest.approx(5)
    assert effective_rank(np.outer(np.arange(1, 5), np.ones(3)).astype(np.float32)) == pytest.approx(1)
    two = np.diag([3.0, 1.0]).astype(np.float32)
    assert effective_rank(two) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_geometry_is_of_the_vectors_an_embedder_gives(embedder, faq):
    texts = list(faq.documents.values())
    found = {(one.exit, one.readout, one.postprocess): one for one in geometry(embedder, texts)}
    assert len(found) == 5 * 2 * 5
    recipe = Recipe("{text}", embedder.recipe.document, [View(3, "mean", "center")])
    vectors = embedder.with_recipe(recipe).fit(texts).embed_documents(texts)
    one = found[3, "mean", "center"]
    assert one.anisotropy == pytest.approx(mean_cosine(vectors), abs=1e-5)
    assert one.effective_rank == pytest.approx(effective_rank(vectors), rel=1e-4)
    assert found[3, "mean", "none"].anisotropy > abs(one.anisotropy)
    within = Recipe("{text}", embedder.recipe.document, [View(3, "mean", "within:256")])
    one = found[3, "mean", "within:256"]
    vectors = embedder.with_recipe(within).fit(texts).embed_documents(texts)
    assert one.effective_rank == pytest.approx(effective_rank(vectors), rel=1e-3)
    with pytest.raises(InputError, match="too few"):
        geometry(embedder, ["one"])
