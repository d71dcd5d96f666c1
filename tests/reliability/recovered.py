"""Compare an index with what it must hold: documents by a dict, scores by numpy."""

from collections import Counter

import numpy as np

from tests.reliability.scenario import WORDS, vectors
from tests.toy import ToyWithStretches
from tp_retrieval import Document, Index, IndexNotFoundError, TPRetrievalError

QUERY = "river stone"
DENSE_SHARE = 0.4


def what_is_wrong(folder, allowed, *, go_on=False):
    """Open an index after a crash and perhaps go on with it; return why it is none of the states allowed, None if it is."""
    try:
        return _what_is_wrong(folder, allowed, go_on)
    except (TPRetrievalError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"


def _what_is_wrong(folder, allowed, go_on):
    try:
        index = Index.open(folder, ToyWithStretches())
    except IndexNotFoundError as error:
        if allowed[0] is not None:
            return f"IndexNotFoundError: {error}"
        Index.create(folder, ToyWithStretches()).close()
        return _what_is_wrong(folder, allowed[1:], go_on)
    with index:
        state = next((state for state in allowed if state is not None and holds(index, state)), None)
        if state is None:
            there = [document.id for document in index]
            return f"{len(there)} documents, none of the states allowed: {there}"
        problems = index.verify().left
        if problems:
            return f"verify: {problems}"
    return _after_going_on(folder, state) if go_on else None


def _after_going_on(folder, state):
    """Add to an index, close and open it; return what is wrong then."""
    after = Document(f"{WORDS[0]} after the crash", {}, "after")
    with Index.open(folder, ToyWithStretches()) as index:
        index.add([after])
    with Index.open(folder, ToyWithStretches()) as index:
        documents = [*state.documents.values(), after]
        if list(index) != documents or len(index.search(QUERY, len(documents), mode="dense")) != len(documents):
            return "what was added after the crash is not there"
    return None


def holds(index, state):
    """Return whether an index has just these documents and answers as it must."""
    documents = list(state.documents.values())
    if list(index) != documents or len(index) != len(documents) or index.get(list(state.documents)) != documents:
        return False
    dense, lexical = cosines(state), bm25(documents)
    wanted = {"dense": dense, "lexical": lexical[lexical > 0], "hybrid": fused(dense, lexical)}
    by_mode = {"dense": dense, "lexical": lexical, "hybrid": wanted["hybrid"]}
    places = {document.id: i for i, document in enumerate(documents)}
    for mode, scores in by_mode.items():
        hits = index.search(QUERY, len(documents) + 5, mode=mode)
        found = np.array([hit.score for hit in hits])
        mine = scores[[places[hit.document.id] for hit in hits]]
        if len({hit.document.id for hit in hits}) != len(wanted[mode]):
            return False
        if not np.allclose(found, mine, atol=1e-4) or (np.diff(found) > 0).any():
            return False
    return True


def cosines(state):
    """Return the cosine of the query with each document `(n,)`, under the map that was fitted."""
    if not state.documents:
        return np.zeros(0)
    raw = vectors([Document(QUERY), *state.documents.values()])
    raw = raw if state.mean is None else raw - state.mean
    raw = raw if state.matrix is None else raw @ state.matrix
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return unit[1:] @ unit[0]


def bm25(documents):
    """Return Robertson's BM25 of each document `(n,)` with k1 = 1.2, b = 0.75 and FTS5's floor of 1e-6 under the idf."""
    counts = [Counter(document.text.split()) for document in documents]
    lengths = np.array([count.total() for count in counts], dtype=np.float64)
    scores = np.zeros(len(counts))
    for word in QUERY.split():
        tf = np.array([count[word] for count in counts], dtype=np.float64)
        having = np.count_nonzero(tf)
        idf = max(np.log((len(counts) - having + 0.5) / (having + 0.5)), 1e-6)
        scores += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * lengths / max(lengths.mean(), 1))) if len(counts) else 0
    return scores


def fused(dense, lexical):
    """Return the convex combination of the standardised scores `(n,)`."""

    def standardised(scores):
        spread = scores.std() if len(scores) else 0
        return (scores - scores.mean()) / spread if spread > 1e-6 else np.zeros_like(scores)

    return DENSE_SHARE * standardised(dense) + (1 - DENSE_SHARE) * standardised(lexical)
