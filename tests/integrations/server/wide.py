"""A server without a model whose answers are big: python -m tests.integrations.server.wide ADDRESS FILES LIMITS

FILES bounds the file descriptors of the process, 0 leaves them; LIMITS are fields of `Limits` as JSON.
"""

import json
import resource
import sys

import numpy as np

from tests.toy import ToyEmbedder
from tp_retrieval.integrations.server import Limits, Settings, create_app, listen
from tp_retrieval.types import Provenance

WIDTH = 1152


class WideEmbedder(ToyEmbedder):
    """1,152 numbers a text, made without work; 2,048 texts have 2.4 million of them."""

    dimension = WIDTH
    fitted = False
    provenance = Provenance("wide", None, None, "", "float32", {}, ())

    def embed_documents(self, texts):
        return np.stack([vector_of(text) for text in texts])

    embed_queries = embed_documents

    def normalize(self, vectors):
        return vectors

    def count_tokens(self, text):
        return len(text.split())

    def cut_tokens(self, texts, role):
        return [0] * len(texts)


def vector_of(text):
    """Return a text's vector, of numbers as long as any when written in decimal."""
    return np.random.default_rng(len(text)).standard_normal(WIDTH).astype(np.float32)


def say(address):
    """Write the address at once."""
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


def main():
    """Serve until told to end."""
    address, files, limits = sys.argv[1:]
    if int(files):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
    app = create_app(WideEmbedder(), settings=Settings(Limits(**json.loads(limits)), method=None))
    listen(app, address, started=say)


if __name__ == "__main__":
    main()
