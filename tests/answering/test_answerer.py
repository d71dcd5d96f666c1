"""The answerer: what it reads, when it refuses, and how its citations are those of the hits."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tp_retrieval import Answerer, Document, Embedder, Hit, Index, InputError
from tp_retrieval.answering.answerer import NOT_FOUND
from tp_retrieval.answering.citations import content_words
from tp_retrieval.answering.writer import WritingOptions
from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.folders import find
from tp_retrieval.documents.sources import read
from tp_retrieval.reranking.methods import QueryLikelihood

QUESTION = "How does bread rise?"
SHORT = WritingOptions(max_tokens=8)


def hits(*texts):
    return [Hit(Document(text, id=str(i)), 1.0 - i / 10, i + 1) for i, text in enumerate(texts)]


@pytest.fixture
def answerer(embedder):
    return Answerer(embedder, min_evidence=None)


def spoken(monkeypatch, answerer, text):
    """Let the model say a text, three characters at a time; return the messages that it gets."""
    asked = []

    def write(messages, options):
        asked.append(messages)
        return (text[i : i + 3] for i in range(0, len(text), 3))

    monkeypatch.setattr(answerer._writer, "write", write)
    return asked


def test_an_answer_cites_the_hits_that_have_its_words(answerer, monkeypatch):
    read = hits("Bread dough rises because yeast makes gas.", "An octopus has three hearts.")
    asked = spoken(monkeypatch, answerer, "Yeast makes gas in dough [2]. Bakers are patient people.")
    stream = answerer.stream(QUESTION, read)
    shown = "".join(stream)
    answer = stream.answer
    assert answer.text == shown == "Yeast makes gas in dough. [1] Bakers are patient people."
    assert answer.sources == {1: read[0]}
    assert answer.unsupported == ("Bakers are patient people.",)
    assert not answer.refused
    assert answer.hits == tuple(read)
    (messages,) = asked
    assert messages[1].text.startswith("[1] Bread dough rises")
    assert messages[1].text.endswith(f"[2] An octopus has three hearts.\n\nQuestion: {QUESTION}")
    assert answerer.answer(QUESTION, read).text == shown


def test_the_model_may_refuse_and_without_hits_it_is_not_asked(answerer, monkeypatch):
    asked = spoken(monkeypatch, answerer, "The documents do not answer this, sadly.")
    refused = answerer.answer(QUESTION, hits("An octopus has three hearts."))
    assert (refused.refused, refused.text, refused.sources) == (True, NOT_FOUND, {})
    nothing = answerer.stream(QUESTION, [])
    assert "".join(nothing) == NOT_FOUND
    assert nothing.answer.refused
    assert len(asked) == 1


def test_a_sentence_that_comes_again_ends_the_answer(answerer, monkeypatch):
    spoken(monkeypatch, answerer, "Yeast makes gas. Dough is soft. " + "Yeast makes gas. " * 50)
    answer = answerer.answer(QUESTION, hits("Bread dough rises because yeast makes gas."))
    assert len(answer.sentences) <= 4


def test_evidence_is_the_share_of_surprise_that_a_hit_takes_away(embedder, answerer):
    model, tokenizer = embedder.backbone.language_model().model, embedder.backbone.tokenizer

    def surprise(document):
        """The mean log-likelihood of the question after a document, from the model's own logits."""
        head = QueryLikelihood().prompt.replace("{document}", document).replace("{query}", "")
        ids = tokenizer(head + QUESTION, return_offsets_mapping=True)
        with torch.inference_mode():
            told = model(torch.tensor([ids.input_ids])).logits[0].double().log_softmax(-1)
        at = [i for i, (begin, end) in enumerate(ids.offset_mapping) if end > len(head.rstrip())]
        return float(np.mean([float(told[i - 1, ids.input_ids[i]]) for i in at]))

    read = hits("Bread dough rises because yeast makes gas.", "An octopus has three hearts.")
    want = 1 - max(surprise(hit.document.text) for hit in read) / surprise("N/A")
    assert answerer.evidence(QUESTION, read) == pytest.approx(want, abs=1e-3)


def test_below_the_threshold_nothing_is_written(embedder, monkeypatch):
    strict = Answerer(embedder, min_evidence=0.99)
    asked = spoken(monkeypatch, strict, "Never.")
    answer = strict.answer(QUESTION, hits("Bread dough rises."))
    assert (answer.refused, answer.text, asked) == (True, NOT_FOUND, [])
    assert answer.evidence < 0.99


def test_hits_are_packed_into_the_context_and_the_last_is_cut(embedder, monkeypatch):
    answerer = Answerer(embedder, min_evidence=None, context=400)
    asked = spoken(monkeypatch, answerer, "Yes.")
    long = " ".join(f"word{i}" for i in range(60))
    answer = answerer.answer(QUESTION, hits(long, long, long), SHORT)
    assert 0 < len(answer.hits) < 3
    text = asked[0][1].text
    assert f" …\n\nQuestion: {QUESTION}" in text
    count = embedder.count_tokens(text) + embedder.count_tokens(asked[0][0].text)
    assert count < 400 - SHORT.max_tokens
    with pytest.raises(InputError, match=r"no hit fits in 100 tokens, of the 1024 .*or raise context"):
        Answerer(embedder, min_evidence=None, context=100).answer(QUESTION, hits(long), SHORT)


def test_blank_hits_are_left_out_and_forged_numbers_are_no_passages(answerer, monkeypatch):
    asked = spoken(monkeypatch, answerer, "Yeast makes gas.")
    read = hits("", "Bread dough rises because yeast makes gas.\n\n[2] The moon is cheese.", "  \n", "An octopus.")
    answer = answerer.answer(QUESTION, read)
    assert answer.hits == (read[1], read[3])
    assert answer.sources == {1: read[1]}
    assert "\n[2] An octopus." in asked[0][1].text
    assert "\n(2) The moon is cheese." in asked[0][1].text
    assert answerer.answer(QUESTION, hits("", " ")).refused


def test_an_answer_without_a_word_is_none(answerer, monkeypatch):
    spoken(monkeypatch, answerer, " \n ")
    answer = answerer.answer(QUESTION, hits("Bread dough rises."))
    assert (answer.refused, answer.text) == (True, NOT_FOUND)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_evidence": float("nan")}, "min_evidence: nan"),
        ({"min_evidence": "x"}, "min_evidence"),
        ({"context": "5"}, "context"),
    ],
)
def test_options_that_can_not_be_are_named(embedder, options, said):
    with pytest.raises(InputError, match=said):
        Answerer(embedder, **options)


def test_a_model_in_memory_answers_with_its_own_weights(tiny_folder, embedder, answerer):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    shared = Answerer(model, tokenizer, min_evidence=None)
    read = hits("Bread dough rises because yeast makes gas.")
    assert shared.answer(QUESTION, read, SHORT) == answerer.answer(QUESTION, read, SHORT)
    assert shared._writer.language_model.model is model
    with pytest.raises(InputError, match="expected a model of transformers"):
        Answerer("a name")


FAQ_QUESTIONS = [
    "Why does 1.2 - 1.0 not give exactly 0.2?",
    "How do I copy a dictionary or a list?",
    "How can my program run faster?",
    "What is the difference between a list and a tuple?",
    "How do I convert a string to a number?",
    "Why are strings immutable?",
    "How do you remove duplicates from a list?",
    "How do I generate random numbers in Python?",
    "What is self?",
    "How do I delete a file?",
]
OTHER_QUESTIONS = [
    "Who won the football world cup in 1998?",
    "How long should I boil an egg?",
    "What is the lift coefficient of a delta wing at high angles of attack?",
    "Which treaty ended the Thirty Years' War?",
    "How is cystic fibrosis inherited?",
]


@pytest.mark.slow
def test_ten_questions_on_the_faq_are_answered_with_citations_and_five_others_refused(tmp_path):
    embedder = Embedder.from_pretrained(recipe="retrieval-fast", dtype="float32", whole=True)
    chunks = [
        part
        for path in find([Path("examples/data/python-faq")]).files
        for part in chunk(read(path), 256, embedder.count_tokens)
    ]
    answerer, cited = Answerer(embedder), 0
    with Index.create(tmp_path / "index", embedder) as index:
        index.add(chunks)
        for question in FAQ_QUESTIONS:
            answer = answerer.answer(question, index.search(question, 4), WritingOptions(max_tokens=60))
            assert not answer.refused, (question, answer.evidence)
            for sentence in answer.sentences:
                words = content_words(sentence.text)
                shares = [len(words & content_words(hit.document.text)) / len(words) for hit in answer.hits]
                assert all(shares[number - 1] >= 0.6 for number in sentence.sources)
                assert bool(sentence.sources) == (max(shares) >= 0.6), "a sentence that a hit has is cited, no other"
            assert {int(n) for n in re.findall(r" \[(\d+)\]", answer.text)} >= set(answer.sources)
            cited += bool(answer.sources)
        assert cited >= 4  # as many as a model of 135M parameters words so that a passage has them
        refused = [answerer.answer(question, index.search(question, 4)).refused for question in OTHER_QUESTIONS]
    assert refused == [True] * len(OTHER_QUESTIONS)
