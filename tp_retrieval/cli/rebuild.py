"""`tp-retrieval rebuild`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tp_retrieval.cli.info import print_info
from tp_retrieval.cli.model_options import AS_STORED, LoadingOptions, with_model_options
from tp_retrieval.cli.output import IndexFolder, Json
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision


@with_model_options
def rebuild(
    index: IndexFolder,
    kind: Annotated[
        str | None, typer.Option(help="auto, flat, scan, hnsw, ivf, ivf-sq8, ivf-pq or a FAISS factory string.")
    ] = None,
    target_recall: Annotated[float | None, typer.Option(help="Recall at 10 to tune for, 0 to 1.")] = None,
    postprocess: Annotated[
        list[str] | None,
        typer.Option(help="none, center, abtt:K, whiten:D or within:K; for all views, or once a view."),
    ] = None,
    raw: Annotated[RawPrecision | None, typer.Option(help="Precision that raw vectors are stored in.")] = None,
    loading: LoadingOptions = AS_STORED,
    as_json: Json = False,
) -> None:
    """Fit the maps and build the vectors anew from the stored raw vectors; no text is embedded."""
    with loading.open_index(index) as opened:
        maps = postprocess[0] if postprocess and len(postprocess) == 1 else postprocess or None
        progress = sys.stderr.isatty()
        opened.rebuild(kind=kind, target_recall=target_recall, postprocess=maps, raw=raw, show_progress=progress)
        print_info(opened.info(), as_json=as_json)
