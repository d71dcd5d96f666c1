"""Find nodes with LlamaIndex by words and vectors, filtered, reranked and answered from, all with one frozen 135M model.

Run: pip install 'tp-retrieval[llama-index]' && python examples/llama_index_rag.py
"""

import tempfile

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from tp_retrieval import Embedder, Reranker
from tp_retrieval.integrations.llama_index import TPLLM, TPEmbedding, TPRerank, TPVectorStore

NODES = [
    TextNode(text="Whales are mammals that live in the sea and breathe air.", metadata={"topic": "animals"}),
    TextNode(text="A sourdough starter is flour and water in which wild yeast lives.", metadata={"topic": "food"}),
    TextNode(text="The Treaty of Westphalia ended the Thirty Years' War in 1648.", metadata={"topic": "history"}),
    TextNode(text="An octopus has three hearts and blue blood.", metadata={"topic": "animals"}),
    TextNode(text="Bread dough rises because yeast turns sugar into carbon dioxide.", metadata={"topic": "food"}),
]


def main() -> None:
    """Make an index, ask it for nodes, and let the same model answer from the best of them."""
    embedder = Embedder.from_pretrained(whole=True)
    embedding = TPEmbedding.from_embedder(embedder)
    with tempfile.TemporaryDirectory() as folder:
        store = TPVectorStore(f"{folder}/index", embedding)
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex(NODES, storage_context=context, embed_model=embedding)

        animals = MetadataFilters(filters=[MetadataFilter(key="topic", value="animals")])
        retriever = index.as_retriever(similarity_top_k=2, filters=animals, vector_store_query_mode="hybrid")
        for found in retriever.retrieve("What breathes air in the sea?"):
            print(f"{found.score:.2f}  {found.text}")

        engine = index.as_query_engine(
            llm=TPLLM.from_embedder(embedder, max_tokens=30),
            similarity_top_k=5,
            node_postprocessors=[TPRerank(reranker=Reranker(embedder), top_n=1)],
        )
        response = engine.query("Why does dough rise?")
        print(f"from:   {response.source_nodes[0].text}")
        print(f"answer: {response}")
        store.close()


if __name__ == "__main__":
    main()
