"""Answers in sentences that cite the hits they come from, by the weights that embedded and reranked them."""
