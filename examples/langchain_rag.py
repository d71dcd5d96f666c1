"""Answer a question from documents with LangChain: one frozen 135M model retrieves, reranks and writes the answer.

Run: pip install 'tp-retrieval[langchain]' && python examples/langchain_rag.py
"""

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from tp_retrieval import Embedder, Reranker
from tp_retrieval.integrations.langchain import TPChatModel, TPEmbeddings, TPRetriever, TPVectorStore

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

    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    writer = TPChatModel.from_embedder(embedder, max_tokens=30)
    chain = {"context": retriever | joined, "question": RunnablePassthrough()} | prompt | writer | StrOutputParser()
    question = "Why does bread dough rise?"
    print(f"found:  {retriever.invoke(question)[0].page_content}")
    print(f"answer: {chain.invoke(question)}")
    store.close()


if __name__ == "__main__":
    main()
