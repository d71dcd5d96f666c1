"""What the tests of adapters share."""

import sys

import pytest


@pytest.fixture(scope="session")
def model_folder(tiny_folder):
    return tiny_folder("llama")


@pytest.fixture
def without(monkeypatch):
    """Make a package look as if it were not installed."""

    def hide(package, ours):
        for name in list(sys.modules):
            if name in (package, ours) or name.startswith((f"{package}.", f"{ours}.")):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return hide
