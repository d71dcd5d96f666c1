"""`tp-retrieval info`."""

from __future__ import annotations

from dataclasses import asdict

from tp_retrieval.cli.output import IndexFolder, Json, print_report


def info(
    index: IndexFolder,
    as_json: Json = False,
) -> None:
    """Show the size, kind, model and recipe of an index."""
    from tp_retrieval import Index

    with Index.open(index) as opened:
        print_report(asdict(opened.info()), as_json)
