"""`tp-retrieval analyze`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tp_retrieval.cli.output import Json, Model, RecipeOption, print_json, print_rows
from tp_retrieval.cli.tune import check_output
from tp_retrieval.documents.sources import read_texts

_SHOWN = 40


def analyze(
    file: Annotated[Path, typer.Argument(help='Texts to look at: one a line, or .jsonl with "text".')],
    output: Annotated[Path, typer.Option(help="Picture to write, a .png file.")] = Path("analysis.png"),
    model: Model = None,
    recipe: RecipeOption = None,
    texts: Annotated[int, typer.Option(min=2, help="Look at so many of the texts at most.")] = 500,
    as_json: Json = False,
) -> None:
    """Draw what prepending does to attention, and how vectors lie at every exit before and after each map.

    Attention is the mean over the first 40 texts.
    """
    check_output(output, ".png")
    from tp_retrieval import Embedder
    from tp_retrieval.embedding.forward.attention import slot_attention
    from tp_retrieval.evaluation.geometry import geometry
    from tp_retrieval.evaluation.report import analysis

    given = read_texts(file)[:texts]
    embedder = Embedder.from_pretrained(model, recipe=recipe or "prompteol-tp")
    seen = slot_attention(embedder, given[:_SHOWN])
    lying = geometry(embedder, given)
    analysis(seen, lying).savefig(output, dpi=150, bbox_inches="tight")
    if as_json:
        report = {"attention": [asdict(one) for one in seen], "geometry": [asdict(one) for one in lying]}
        print_json({"output": str(output), "texts": len(given), "attention_texts": len(given[:_SHOWN])} | report)
        return
    rows = [
        (str(one.block), "on" if one.prepending else "off", f"{100 * one.early:.1f}", f"{100 * one.late:.1f}")
        for one in seen
    ]
    print_rows(("block", "prepending", "early half to slot, %", "late half, %"), rows)
    typer.echo(f"picture: {output}")
