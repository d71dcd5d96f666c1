"""Compare sentences and find passages with a frozen LLM inside sentence-transformers.

Run: pip install 'tp-retrieval[sentence-transformers]' && python examples/sentence_transformers_similarity.py
"""

import tempfile

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.util import semantic_search

from tp_retrieval.integrations.sentence_transformers import TPModule

SENTENCES = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell today."]
PASSAGES = [
    "Whales are mammals that live in the sea and breathe air.",
    "The Treaty of Westphalia ended the Thirty Years' War in 1648.",
    "Bread dough rises because yeast turns sugar into carbon dioxide.",
]


def main() -> None:
    """Compare sentences with one recipe, search with another, save and read again."""
    model = SentenceTransformer(modules=[TPModule(recipe="sts"), Normalize()])
    for sentence, row in zip(SENTENCES, model.similarity(model.encode(SENTENCES), model.encode(SENTENCES)), strict=True):
        print(f"{sentence:32}", " ".join(f"{value:5.2f}" for value in row))

    model = SentenceTransformer(modules=[TPModule(recipe="retrieval"), Normalize()])
    question = model.encode_query("Why does bread rise?", convert_to_tensor=True)  # through the query's template
    ((best, *_),) = semantic_search(question, model.encode_document(PASSAGES, convert_to_tensor=True))
    print(f"found: {PASSAGES[int(best['corpus_id'])]}")

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # settings and templates; the language model is named, not copied
        again = SentenceTransformer(folder, trust_remote_code=True, local_files_only=True)
        same = again.encode_query("Why does bread rise?", convert_to_tensor=True)
        print(f"read again: {float(again.similarity(same, question)):.4f}")
        print(f"binary: {again.encode_document(PASSAGES, precision='ubinary').shape[1]} bytes a passage")


if __name__ == "__main__":
    main()
