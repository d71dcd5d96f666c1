"""Figures and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Figure = Mapping[str, float]
"""An estimate: `value`, `low`, `high`."""
NAMES = {
    "python-faq": "Python FAQ",
    "cranfield": "Cranfield",
    "xquad-de": "XQuAD, German",
    "xquad-en": "XQuAD, English",
    "scifact": "SciFact",
    "adi": "ADI",
    "limit-small": "LIMIT, made to defeat vectors",
    "STSB-dev": "STS-B dev",
    "STS12": "STS12",
    "SICKR-trial": "SICK-R trial",
    "STSB-test-de": "STS-B test, German",
}
"""The sets, as readers know them."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    body = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return "\n".join([body[0], "|---" * len(header) + "|", *body[1:]])


def number(value: float, digits: int = 1) -> str:
    """Return a number with a true minus."""
    return f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """Return a difference."""
    return f"{value:+.1f}".replace("-", "−")


def figure(estimate: Figure, mark: str = "") -> str:
    """Return a figure with its interval; `mark` stands around the figure."""
    return f"{mark}{number(estimate['value'])}{mark} [{number(estimate['low'])}, {number(estimate['high'])}]"


def gain(estimate: Figure) -> str:
    """Return a difference with its interval."""
    return f"{signed(estimate['value'])} [{signed(estimate['low'])}, {signed(estimate['high'])}]"
