"""sentence-transformers: each role's template, saving, quantising, processes; and MTEB on top of it."""

import json
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.util.quantization import quantize_embeddings

from tp_retrieval import InputError, OptionalDependencyError, Recipe
from tp_retrieval.embedding.recipe import View
from tp_retrieval.integrations.sentence_transformers import TPModule

TEXTS = ["red apple", "green apple", "an old stone bridge", "the cat sleeps", "", "a much longer text " * 8]


@pytest.fixture
def model(embedder):
    return SentenceTransformer(modules=[TPModule.from_embedder(embedder), Normalize()], device="cpu")


@pytest.fixture
def queries(embedder):
    return embedder.normalize(embedder.embed_queries(TEXTS))


@pytest.fixture
def documents(embedder):
    return embedder.normalize(embedder.embed_documents(TEXTS))


def close(got, want):
    return np.shape(got) == want.shape and np.allclose(got, want, atol=1e-5)


def test_queries_and_documents_go_through_their_own_templates(model, queries, documents):
    assert np.abs(queries - documents).max() > 1e-3
    assert close(model.encode_query(TEXTS, batch_size=2), queries)
    assert close(model.encode_document(TEXTS), documents)
    assert close(model.encode(TEXTS), documents)
    assert close(model.encode_query(TEXTS[0]), queries[0])
    assert model.encode([]).shape == (0,)
    tensor = model.encode_query(TEXTS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert close(tensor, queries)
    assert model.get_embedding_dimension() == queries.shape[1]
    assert model.get_max_seq_length() == 512
    assert model.tokenizer.tokenize("red") == ["red"]
    assert np.allclose(model.similarity(queries, documents), queries @ documents.T, atol=1e-5)


def test_it_is_saved_by_name_and_read_again(model, queries, documents, tmp_path, embedder):
    model.save_pretrained(str(tmp_path / "saved"))
    settings = json.loads((tmp_path / "saved" / "tp_retrieval.json").read_text())
    assert (settings["model"], settings["recipe"]) == (embedder.backbone.origin, embedder.recipe.to_dict())
    assert not list((tmp_path / "saved").rglob("*.safetensors"))
    again = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, local_files_only=True, device="cpu")
    assert close(again.encode_query(TEXTS), queries)
    assert close(again.encode_document(TEXTS), documents)


def test_a_fitted_embedder_is_saved_with_its_maps(embedder, tmp_path):
    recipe = Recipe("Question: {text}", "Passage: {text}", [View(2, "mean", "center")])
    fitted = embedder.with_recipe(recipe).fit(TEXTS)
    module = TPModule.from_embedder(fitted)
    with pytest.raises(InputError, match="save the embedder"):
        pickle.dumps(module)
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved").rename(tmp_path / "moved")
    again = SentenceTransformer(str(tmp_path / "moved"), trust_remote_code=True, local_files_only=True, device="cpu")
    assert close(again.encode_query(TEXTS), fitted.embed_queries(TEXTS))
    assert close(pickle.loads(pickle.dumps(again)).encode_query(TEXTS), fitted.embed_queries(TEXTS))  # noqa: S301


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_it_is_quantised(model, documents, precision):
    if "int8" in precision:  # in steps of a 255th of each dimension's range
        ranges = np.stack([documents.min(axis=0), documents.max(axis=0)])
        want = quantize_embeddings(documents, precision=precision, ranges=ranges)
        assert np.abs(model.encode(TEXTS, precision=precision).astype(int) - want.astype(int)).max() <= 1
    else:
        signs = np.packbits(documents > 0, axis=1)
        want = signs if precision == "ubinary" else (signs.astype(int) - 128).astype(np.int8)
        assert np.array_equal(model.encode(TEXTS, precision=precision), want)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(model, queries):
    assert close(model.encode_query(TEXTS, device=["cpu", "cpu"], chunk_size=2), queries)


def test_vectors_are_kept_in_a_cache(embedder, queries, tmp_path, monkeypatch):
    module = TPModule.from_embedder(embedder, cache=str(tmp_path / "vectors.sqlite"))
    model = SentenceTransformer(modules=[module], device="cpu")
    assert close(model.encode_query(TEXTS), queries)
    monkeypatch.setattr(type(embedder), "_embed", None)
    assert close(model.encode_query(TEXTS), queries)
    module.embedder.close()


def test_a_prompt_of_theirs_is_refused(model):
    with pytest.raises(InputError, match="templates belong to the recipe"):
        model.encode(TEXTS, prompt="query: ")
    with pytest.raises(InputError, match=r"inputs\[0\]: expected str, got tuple"):
        model.encode([("a", "b")])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_mteb_runs_it(model, embedder, monkeypatch):
    import mteb
    from mteb.mocks.mock_tasks import MockRerankingTask, MockRetrievalTask, MockSTSTask

    asked = {"query": set(), "document": set()}
    original = type(embedder)._embed
    monkeypatch.setattr(
        type(embedder),
        "_embed",
        lambda self, texts, role, *rest: (asked[role].update(texts), original(self, texts, role, *rest))[1],
    )
    tasks = [MockSTSTask(), MockRetrievalTask(), MockRerankingTask()]
    results = {result.task_name: result for result in mteb.evaluate(model, tasks, cache=None).task_results}
    assert set(results) == {"MockSTSTask", "MockRetrievalTask", "MockRerankingTask"}
    rows, sets = MockSTSTask(), MockRetrievalTask()
    rows.load_data()
    sets.load_data()
    pairs, given = rows.dataset["test"], sets.dataset["default"]["test"]
    one, other = (embedder.normalize(embedder.embed_documents(list(pairs[name]))) for name in ("sentence1", "sentence2"))
    want = spearmanr((one * other).sum(axis=1), pairs["score"]).statistic
    assert np.isclose(results["MockSTSTask"].get_score(), want, atol=1e-6)
    passages = [f"{row['title']} {row['text']}".strip() for row in given["corpus"]]
    cosines = model.similarity(model.encode_query(list(given["queries"]["text"])), model.encode_document(passages)).numpy()
    gains = [1 if row.argmax() == i else 1 / np.log2(3) for i, row in enumerate(cosines)]  # of two, one is relevant
    assert np.isclose(results["MockRetrievalTask"].get_score(), np.mean(gains), atol=1e-5)
    assert 0 < results["MockRerankingTask"].get_score() <= 1
    assert asked["query"] == set(given["queries"]["text"])
    assert set(passages) <= asked["document"]


def test_a_missing_framework_gives_the_pip_line(without):
    without("sentence_transformers", "tp_retrieval.integrations.sentence_transformers")
    with pytest.raises(OptionalDependencyError, match=r"pip install 'tp-retrieval\[sentence-transformers\]'"):
        import tp_retrieval.integrations.sentence_transformers  # noqa: F401
