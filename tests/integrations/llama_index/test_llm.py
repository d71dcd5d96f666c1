"""The LLM: chats, completions and a query engine on the weights that embed."""

import pytest
import torch
from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.schema import TextNode
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tp_retrieval import InputError
from tp_retrieval.answering.chat import Message
from tp_retrieval.answering.writer import WritingOptions
from tp_retrieval.integrations.llama_index import TPLLM, TPEmbedding

QUESTION = "What is the capital of France?"
ASK = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=QUESTION)]


@pytest.fixture
def llm(embedder):
    return TPLLM.from_embedder(embedder, max_tokens=10)


def test_a_chat_is_what_the_writer_writes(llm):
    want = "".join(llm.writer.write([Message("system", "Be brief."), Message("user", QUESTION)], WritingOptions(10)))
    said = llm.chat(ASK)
    assert said.message.content == want
    assert said.raw["completion_tokens"] == 10
    responses = list(llm.stream_chat(ASK))
    assert "".join(response.delta for response in responses) == want == responses[-1].message.content
    turn = [ChatMessage(role=MessageRole.ASSISTANT, content="Paris."), ChatMessage(role="user", content="Sure?")]
    assert llm.chat([*ASK, *turn], max_tokens=3).raw["completion_tokens"] == 3


def test_a_prompt_is_a_users_message_and_a_formatted_one_is_continued(llm):
    assert llm.complete(QUESTION).text == llm.chat(ASK[1:]).message.content
    assert list(llm.stream_complete(QUESTION))[-1].text == llm.complete(QUESTION).text
    ids = list(llm.writer.backbone.tokenizer(QUESTION).input_ids)
    assert llm.complete(QUESTION, formatted=True).text == "".join(llm.writer.write_on(ids, WritingOptions(10)))
    stop = llm.complete(QUESTION).text[3:6]
    assert stop not in llm.complete(QUESTION, stop=[stop]).text


async def test_asynchronous_calls_give_the_same(llm):
    assert (await llm.achat(ASK)).message.content == llm.chat(ASK).message.content
    assert (await llm.acomplete(QUESTION)).text == llm.complete(QUESTION).text
    pieces = [response.delta async for response in await llm.astream_chat(ASK)]
    assert "".join(pieces) == llm.chat(ASK).message.content


@pytest.mark.usefixtures("closed_loop")
def test_a_query_engine_retrieves_and_writes_with_one_model(tiny_folder):
    folder = tiny_folder("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    llm = TPLLM(model=model, tokenizer=tokenizer, recipe=tiny.RECIPE.to_dict(), max_tokens=5)
    embedding = TPEmbedding(model=model, tokenizer=tokenizer, recipe=tiny.RECIPE.to_dict())
    assert llm.writer.language_model.model is model
    assert embedding.embedder.backbone.decoder is llm.writer.backbone.decoder
    nodes = [TextNode(text=text) for text in ("Paris is the capital of France.", "An octopus has three hearts.")]
    engine = VectorStoreIndex(nodes, embed_model=embedding).as_query_engine(llm=llm)
    assert str(engine.query(QUESTION))
    named = TPLLM(model=folder, recipe=tiny.RECIPE.to_dict(), dtype="float32", max_tokens=5)
    assert named.complete(QUESTION).text == llm.complete(QUESTION).text


def test_what_it_is(llm):
    assert llm.metadata.context_window == 1024
    assert llm.metadata.is_chat_model
    assert TPLLM.class_name() == "TPLLM"
    with pytest.raises(InputError, match="a tool message"):
        llm.chat([ChatMessage(role="tool", content="1")])
    with pytest.raises(InputError, match="best_of: TPLLM has no such argument"):
        llm.complete("a", best_of=2)
