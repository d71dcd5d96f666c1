"""`tp-retrieval analyze`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tp_retrieval.cli.evaluate import require_evaluation
from tp_retrieval.cli.model_options import DEFAULT_MODEL, ModelOptions, with_model_options
from tp_retrieval.cli.output import Json, RecipeOption, check_output, print_json, print_rows
from tp_retrieval.documents.sources import read_texts

_ATTENTION_TEXTS = 40


@with_model_options
def analyze(
    file: Annotated[Path, typer.Argument(help='One text a line, or .jsonl with "text".')],
    output: Annotated[Path, typer.Option(help="Picture to write, a .png file.")] = Path("analysis.png"),
    model: ModelOptions = DEFAULT_MODEL,
    recipe: RecipeOption = None,
    texts: Annotated[int, typer.Option(min=2, help="Largest number of texts to read.")] = 500,
    as_json: Json = False,
) -> None:
    """Draw the effect of prepending on attention, and the anisotropy and rank of vectors at every exit with each map.

    Attention is the mean over the first 40 texts.
    """
    require_evaluation("matplotlib")
    check_output(output, ".png")
    from tp_retrieval.embedding.forward.attention import slot_attention
    from tp_retrieval.evaluation.geometry import geometry
    from tp_retrieval.evaluation.report import analysis

    sample = read_texts(file)[:texts]
    embedder = model.embedder(recipe or "prompteol-tp")
    attention = slot_attention(embedder, sample[:_ATTENTION_TEXTS])
    geometries = geometry(embedder, sample)
    analysis(attention, geometries).savefig(output, dpi=150, bbox_inches="tight")
    if as_json:
        report = {"attention": [asdict(row) for row in attention], "geometry": [asdict(row) for row in geometries]}
        print_json(
            {"output": str(output), "texts": len(sample), "attention_texts": len(sample[:_ATTENTION_TEXTS])} | report
        )
        return
    rows = [
        (str(row.block), "on" if row.prepending else "off", f"{100 * row.early:.1f}", f"{100 * row.late:.1f}")
        for row in attention
    ]
    print_rows(("block", "prepending", "early half to slot, %", "late half, %"), rows)
    typer.echo(f"picture: {output}")
