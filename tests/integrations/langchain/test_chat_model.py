"""The chat model: LangChain's standard tests, and that it writes with the weights that embed."""

import pickle

import pytest
import torch
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tp_retrieval import InputError, Reranker
from tp_retrieval.answering.chat import Message
from tp_retrieval.answering.writer import WritingOptions
from tp_retrieval.integrations.langchain import TPChatModel, TPEmbeddings

QUESTION = "What is the capital of France?"


@pytest.fixture
def chat(embedder):
    return TPChatModel.from_embedder(embedder, max_tokens=10)


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return TPChatModel

    @property
    def chat_model_params(self):
        return {"model": "no/model"}


class TestIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _folder(self, tiny_folder):
        TestIntegration.folder = tiny_folder("llama")

    @property
    def chat_model_class(self):
        return TPChatModel

    @property
    def chat_model_params(self):
        return {"model": str(self.folder), "max_tokens": 10, "dtype": "float32", "recipe": "prompteol"}

    @pytest.fixture
    def model(self, request, _folder):
        return TPChatModel(**self.chat_model_params)

    @property
    def has_tool_calling(self):
        return False

    @property
    def has_structured_output(self):
        return False


def test_it_writes_what_the_writer_writes_and_counts_tokens(chat):
    want = "".join(chat.writer.write([Message("system", "Be brief."), Message("user", QUESTION)], WritingOptions(10)))
    messages = [SystemMessage("Be brief."), HumanMessage(QUESTION)]
    said = chat.invoke(messages)
    assert said.content == want
    assert said.usage_metadata["output_tokens"] == 10
    assert said.response_metadata["finish_reason"] == "length"
    pieces = list(chat.stream(messages))
    assert "".join(piece.content for piece in pieces) == want
    assert len(pieces) > 4
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    assert total.usage_metadata == said.usage_metadata
    turns = [("human", "Hi"), ("ai", "Hello."), HumanMessage([{"type": "text", "text": QUESTION}])]
    assert chat.invoke(turns, max_tokens=3).usage_metadata["output_tokens"] == 3
    assert chat.get_num_tokens("<|im_end|>") > 1


async def test_asynchronous_calls_give_the_same(chat):
    assert (await chat.ainvoke(QUESTION)).content == chat.invoke(QUESTION).content
    assert "".join([piece.content async for piece in chat.astream(QUESTION)]) == chat.invoke(QUESTION).content


def test_one_model_embeds_writes_and_reranks(tiny_folder):
    folder = tiny_folder("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = TPChatModel(model=model, tokenizer=tokenizer, recipe=tiny.RECIPE.to_dict(), max_tokens=5)
    assert chat.writer.language_model.model is model
    named = TPChatModel(model=folder, recipe=tiny.RECIPE.to_dict(), dtype="float32", max_tokens=5)
    assert named.invoke(QUESTION).content == chat.invoke(QUESTION).content
    embeddings = TPEmbeddings(model=model, tokenizer=tokenizer, recipe=tiny.RECIPE.to_dict())
    assert embeddings.embedder.backbone.decoder is chat.writer.backbone.decoder
    texts = ["a dog", "a river"]
    by_object = Reranker.from_model(model, tokenizer).score(QUESTION, texts)
    assert by_object == pytest.approx(Reranker(embeddings.embedder).score(QUESTION, texts))
    assert len(Reranker.from_model(model, tokenizer, method="embedding").score(QUESTION, texts)) == 2


def test_it_stands_in_a_chain_and_stops(chat):
    whole = (ChatPromptTemplate.from_template("Say: {text}") | chat).invoke({"text": "hello"}).content
    stopped = (ChatPromptTemplate.from_template("Say: {text}") | chat.bind(stop=[whole[5:8]])).invoke({"text": "hello"})
    assert stopped.content == whole[: whole.index(whole[5:8])]


@pytest.mark.parametrize(
    ("messages", "options", "said"),
    [
        ([ToolMessage("1", tool_call_id="a")], {}, "a tool message"),
        ([ChatMessage(content="hi", role="narrator")], {}, "a narrator message"),
        ([HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])], {}, "a part of type 'image_url'"),
        ([AIMessage("a")], {"best_of": 2}, "best_of: TPChatModel has no such argument"),
        ([HumanMessage("a")], {"temperature": -1}, "temperature: -1"),
    ],
)
def test_what_the_model_can_not_do_is_refused(chat, messages, options, said):
    with pytest.raises(InputError, match=said):
        chat.invoke(messages, **options)


def test_a_model_of_a_name_is_pickled_by_it(tiny_folder):
    chat = TPChatModel(model=str(tiny_folder("llama")), max_tokens=5, dtype="float32")
    again = pickle.loads(pickle.dumps(chat))  # noqa: S301
    assert again.invoke(QUESTION).content == chat.invoke(QUESTION).content
    embeddings = TPEmbeddings(model=str(tiny_folder("llama")), dtype="float32", recipe=tiny.RECIPE.to_dict())
    want = embeddings.embed_query(QUESTION)
    assert pickle.loads(pickle.dumps(embeddings)).embed_query(QUESTION) == want  # noqa: S301


def test_a_model_in_memory_is_not_pickled(tiny_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama")).eval()
    chat = TPChatModel(model=model, tokenizer=AutoTokenizer.from_pretrained(tiny_folder("llama")))
    with pytest.raises(InputError, match="in this process's memory alone"):
        pickle.dumps(chat)
