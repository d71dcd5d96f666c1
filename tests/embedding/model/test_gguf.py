"""Where unpacked models are kept."""

import sys
from pathlib import Path

import pytest

from tp_retrieval.embedding.model import gguf


@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache folder is the platform's own")
@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"TP_RETRIEVAL_CACHE": "/first", "XDG_CACHE_HOME": "/second"}, "/first"),
        ({"TP_RETRIEVAL_CACHE": "near"}, "near"),
        ({"XDG_CACHE_HOME": "/second"}, "/second/tp_retrieval"),
        ({"XDG_CACHE_HOME": ""}, "/home/someone/.cache/tp_retrieval"),
        ({}, "/home/someone/.cache/tp_retrieval"),
    ],
)
def test_the_cache_folder(monkeypatch, environment, folder):
    for name in ("TP_RETRIEVAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **environment}.items():
        monkeypatch.setenv(name, value)
    assert gguf._cache() == Path(folder)
