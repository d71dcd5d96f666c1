"""Answer a question from documents with LangChain: one frozen 135M model retrieves, reranks and writes the answer.

Run: pip install 'tp-retrieval[langchain]' && python examples/langchain_rag.py
"""

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from tp_retrieval import Embedder, Reranker
from tp_retrieval.integrations.langchain import TPEmbeddings, TPRetriever, TPVectorStore

TEXTS = [
    "Whales are mammals that live in the sea and breathe air.",
    "A sourdough starter is flour and water in which wild yeast lives.",
    "The Treaty of Westphalia ended the Thirty Years' War in 1648.",
    "An octopus has three hearts and blue blood.",
    "Bread dough rises because yeast turns sugar into carbon dioxide.",
]


def main() -> None:
    """Make a store, put a retriever with a reranker over it, and let the same model write."""
    embedder = Embedder.from_pretrained(whole=True)  # every block and the LM head, once
    store = TPVectorStore.from_texts(TEXTS, TPEmbeddings.from_embedder(embedder))
    retriever = TPRetriever(store=store, k=1, rerank=Reranker(embedder))

    def joined(documents: list[Document]) -> str:
        return "\n".join(document.page_content for document in documents)

    def write(inputs: dict[str, str]) -> str:
        tokenizer, model = embedder.backbone.tokenizer, embedder.backbone.language_model().model
        message = f"{inputs['context']}\n\nAnswer with a few words from the text above: {inputs['question']}"
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], add_generation_prompt=True, tokenize=False
        )
        prompt = tokenizer(str(chat), return_tensors="pt", add_special_tokens=False).to(embedder.backbone.device)
        written = model.generate(  # type: ignore[operator]  # torch types no method of a module
            **prompt, max_new_tokens=30, do_sample=False, pad_token_id=tokenizer.eos_token_id
        )
        return str(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))

    chain = {"context": retriever | joined, "question": RunnablePassthrough()} | RunnableLambda(write)
    question = "Why does bread dough rise?"
    print(f"found:  {retriever.invoke(question)[0].page_content}")
    print(f"answer: {chain.invoke(question)}")
    store.close()


if __name__ == "__main__":
    main()
