"""Embedding: texts to vectors by a frozen language model. torch and transformers are imported here and in `reranking`."""
