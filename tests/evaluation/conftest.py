"""Small labelled sets on which a tiny random model can be measured."""

import numpy as np
import pytest

from tp_retrieval.evaluation.datasets import RetrievalSet, StsPairs

_THINGS = ["whale", "bread", "bridge", "guitar", "river", "treaty", "engine", "lamp", "garden", "ticket", "mirror", "rope"]
_DEEDS = ["breathes air at the surface", "is kept in a dry place", "was sold for a small sum", "needs repair every year"]


@pytest.fixture(scope="session")
def faq():
    """48 documents and 24 questions that share a word or two with their answer."""
    documents = {f"d{i}": f"The {_THINGS[i % 12]} {_DEEDS[i // 12]}, as everyone knows." for i in range(48)}
    queries = {f"q{i}": f"Which {_THINGS[i % 12]} {_DEEDS[i // 12].split()[-1]}?" for i in range(24)}
    return RetrievalSet("faq", documents, queries, {f"q{i}": {f"d{i}": 1} for i in range(24)})


@pytest.fixture(scope="session")
def pairs():
    """60 pairs of sentences, scored by how many words they share."""
    chance = np.random.default_rng(0)
    first = [f"The {_THINGS[i]} {_DEEDS[j]}." for i, j in chance.integers(0, 4, (60, 2))]
    second = [f"A {_THINGS[i]} {_DEEDS[j]}." for i, j in chance.integers(0, 4, (60, 2))]
    scores = [float(len(set(a.split()) & set(b.split()))) for a, b in zip(first, second, strict=True)]
    return StsPairs("pairs", first, second, scores, ["a", "b", "c"] * 20)
