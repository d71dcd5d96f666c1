"""Adapters to other people's frameworks, imported as `tp_retrieval.integrations.<framework>`."""
