"""Ids, documents, vectors and full text never drift apart, whatever is done in whatever order."""

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Index, InputError
from tp_retrieval.indexing.vectors import kinds

IDS = st.sampled_from([f"id{i}" for i in range(12)])
TEXTS = st.lists(st.sampled_from(["river", "stone", "cat", "sea", "green", "house"]), min_size=1, max_size=4).map(" ".join)
DOCUMENTS = st.lists(
    st.builds(lambda id_, text, n: Document(text, {"n": n}, id_), IDS, TEXTS, st.integers(0, 3)),
    min_size=1,
    max_size=5,
    unique_by=lambda document: document.id,
)


class IndexAgainstDict(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp()) / "i"
        self.index = Index.create(self.folder, ToyEmbedder())
        self.model = {}  # id -> Document, in the order of adding
        self.tenant = {}  # the same of a namespace

    def teardown(self):
        self.index.close()
        shutil.rmtree(self.folder.parent)

    @rule(documents=DOCUMENTS)
    def add_or_replace(self, documents):
        assert self.index.add(documents) == [document.id for document in documents]
        for document in documents:
            self.model.pop(document.id, None)
            self.model[document.id] = document

    @rule(ids=st.lists(IDS, max_size=4, unique=True))
    def delete(self, ids):
        assert self.index.delete(ids) == len([id_ for id_ in ids if id_ in self.model])
        for id_ in ids:
            self.model.pop(id_, None)

    @rule(moves=st.dictionaries(IDS, st.tuples(IDS, st.integers(0, 3)), max_size=4))
    def give_other_ids_and_metadata(self, moves):
        known = {id_: move for id_, move in moves.items() if id_ in self.model}
        documents = {id_: Document(self.model[id_].text, {"n": n}, new) for id_, (new, n) in known.items()}
        new = [document.id for document in documents.values()]
        if len({*new}) < len(new) or {*new} & (self.model.keys() - documents.keys()):
            with pytest.raises(InputError):
                self.index.update(documents)
            return
        assert self.index.update(documents) == new
        for id_ in documents:
            del self.model[id_]
        self.model |= {document.id: document for document in documents.values()}

    @rule()
    def clear(self):
        assert self.index.clear() == len(self.model) + len(self.tenant)
        self.model.clear()
        self.tenant.clear()

    @rule(documents=DOCUMENTS)
    def a_tenant_adds(self, documents):
        assert self.index.add(documents, namespace="tenant") == [document.id for document in documents]
        for document in documents:
            self.tenant.pop(document.id, None)
            self.tenant[document.id] = document

    @rule(ids=st.lists(IDS, max_size=4, unique=True))
    def a_tenant_deletes(self, ids):
        assert self.index.delete(ids, namespace="tenant") == len([id_ for id_ in ids if self.tenant.pop(id_, None)])

    @rule()
    def a_tenant_leaves(self):
        assert self.index.clear(namespace="tenant") == len(self.tenant)
        self.tenant.clear()

    @rule(query=TEXTS, n=st.none() | st.integers(0, 3))
    def a_tenant_searches(self, query, n):
        fitting = {id_ for id_, document in self.tenant.items() if n in (None, document.metadata["n"])}
        hits = self.index.search(query, 20, where=None if n is None else {"n": n}, mode="dense", namespace="tenant")
        assert {hit.document.id for hit in hits} == fitting
        assert all(self.tenant[hit.document.id] == hit.document for hit in hits)

    @rule(vanish=st.booleans())
    def reopen(self, vanish):
        self.index.close()
        if vanish:
            for file in self.folder.glob("vectors-*"):
                file.unlink()
        self.index = Index.open(self.folder, ToyEmbedder())

    @rule(documents=DOCUMENTS)
    def another_process_adds(self, documents):
        with Index.open(self.folder, ToyEmbedder()) as other:
            other.add(documents)
        for document in documents:
            self.model.pop(document.id, None)
            self.model[document.id] = document

    @rule()
    def rebuild(self):
        self.index.rebuild()

    @rule(query=TEXTS, k=st.integers(1, 15), keep=st.none() | st.integers(0, 3))
    def search_dense(self, query, k, keep):
        documents = [d for d in self.model.values() if keep is None or d.metadata["n"] == keep]
        where = None if keep is None else {"n": keep}
        hits = self.index.search(query, k, mode="dense", where=where)
        raw = ToyEmbedder().embed_documents([query, *(d.text for d in documents)]).astype(np.float64)
        unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        scores = unit[1:] @ unit[0]
        places = [documents.index(hit.document) for hit in hits]
        assert len(set(places)) == min(k, len(documents))
        assert np.allclose([hit.score for hit in hits], scores[places], atol=1e-5)
        assert (np.diff(scores[places]) < 1e-6).all(), "best first; different texts may tie by chance"
        assert (scores[places] >= np.sort(scores)[::-1][: len(places)] - 1e-6).all(), "and nothing better was left out"
        for place in places:
            twins = [i for i in range(place) if documents[i].text == documents[place].text]
            assert all(twin in places[: places.index(place)] for twin in twins), "equal texts in the order of adding"

    @rule(query=TEXTS)
    def search_lexical(self, query):
        hits = self.index.search(query, len(self.model) + 1, mode="lexical")
        words = set(query.split())
        assert {hit.document.id for hit in hits} == {i for i, d in self.model.items() if words & set(d.text.split())}

    @invariant()
    def holds_what_the_dict_holds(self):
        assert len(self.index) == len(self.model) + len(self.tenant)
        counts = {"": len(self.model), "tenant": len(self.tenant)}
        assert self.index.namespaces() == {name: count for name, count in counts.items() if count}
        assert self.index.get(list(self.tenant), namespace="tenant") == list(self.tenant.values())
        assert self.index.get(list(self.model)) == list(self.model.values())


BASE = 700
WORDS = ["river", "stone", "cat", "sea", "green", "house", "bread", "wind", "lamp", "glass", "tree", "iron"]


class ScannedIndexAgainstDict(IndexAgainstDict):
    """The same over codes of 700 rows, of which a search scores 512 exactly."""

    def __init__(self):
        super().__init__()
        self.trained = pytest.MonkeyPatch()
        self.trained.setattr(kinds, "TRAIN_AT", BASE)
        texts = itertools.islice(itertools.product(WORDS, repeat=3), BASE)
        self.add_or_replace([Document(" ".join(words), {"n": i % 4}, f"base{i}") for i, words in enumerate(texts)])
        self.index.wait_until_built()
        assert self.index.info().tuning is not None

    def teardown(self):
        super().teardown()
        self.trained.undo()


def run(examples, steps, machine=IndexAgainstDict):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_ten_lives_of_an_index():
    run(10, 30)


def test_three_lives_of_an_index_that_scans_codes():
    run(3, 30, ScannedIndexAgainstDict)


@pytest.mark.slow
def test_two_hundred_lives_of_fifty_steps():
    run(200, 50)


@pytest.mark.slow
def test_sixty_lives_of_an_index_that_scans_codes():
    run(60, 50, ScannedIndexAgainstDict)
