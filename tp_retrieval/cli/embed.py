"""`tp-retrieval embed`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

import tp_retrieval
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import Json, RecipeOption, check_output, hint_unmeasured, print_report
from tp_retrieval.documents.sources import read_texts
from tp_retrieval.embedding.recipe import DEFAULT_RECIPE


@with_model_options
def embed(
    file: Annotated[Path, typer.Argument(help='One text a line, or .jsonl with "text".')],
    role: Annotated[Literal["query", "document"], typer.Option(help="Which of the recipe's templates to use.")],
    output: Annotated[Path, typer.Option(help="A .npy file, float32, one row a text: the recipe's raw views.")],
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that embed, each with the model loaded.")] = 1,
    as_json: Json = False,
) -> None:
    """Embed a file's texts and write their vectors."""
    texts = read_texts(file)
    check_output(output, ".npy")

    embedder = model.embedder(recipe)
    if recipe is None:
        hint_unmeasured(DEFAULT_RECIPE, embedder.backbone.name)
    method = embedder.embed_queries if role == "query" else embedder.embed_documents
    vectors = method(texts, show_progress=sys.stderr.isatty(), processes=processes)
    try:
        np.save(output, vectors)
    except OSError as error:
        raise tp_retrieval.InputError(f"--output: can't write {output} ({error})") from error
    provenance = embedder.provenance
    done = {
        "output": str(output),
        "texts": len(texts),
        "dimension": embedder.dimension,
        "model": provenance.model,
        "dtype": provenance.dtype,
        "fingerprint": embedder.fingerprint,
    }
    print_report(done, as_json)
