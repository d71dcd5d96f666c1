"""Reports: of tuning one self-contained HTML page and its pictures, of analysis a picture.

Tuning: the score over exits, the score over prepending's start and stop, and the table of arms. Analysis: the attention on
the slot, and the geometry of vectors.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import StrictUndefined, Template

from tp_retrieval.embedding.forward.attention import SlotAttention
from tp_retrieval.evaluation.geometry import Geometry
from tp_retrieval.evaluation.tuning.tuner import ArmResult, Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE = Template(
    Path(__file__).with_name("report.html").read_text(encoding="utf-8"),
    autoescape=True,
    trim_blocks=True,
    undefined=StrictUndefined,
)


def write(tuned: Tuned, recipe_file: Path, title: str) -> list[Path]:
    """Write the recipe, and beside it `NAME.html` and a PNG a picture; return the files."""
    recipe_file.write_text(tuned.recipe.to_json(), encoding="utf-8")
    pictures = {"exits": _exits(tuned.arms)}
    scopes = _scopes(tuned.arms)
    if scopes is not None:
        pictures["scopes"] = scopes
    files, encoded = [recipe_file], {}
    for name, figure in pictures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=100, bbox_inches="tight")
        files.append(recipe_file.with_suffix(f".{name}.png"))
        files[-1].write_bytes(buffer.getvalue())
        encoded[name] = base64.b64encode(buffer.getvalue()).decode()
    files.append(recipe_file.with_suffix(".html"))
    files[-1].write_text(_page(tuned, title, encoded), encoding="utf-8")
    return files


def _page(tuned: Tuned, title: str, pictures: dict[str, str]) -> str:
    captions = {
        "exits": "Score of a single view over the exit it is read at, for the arms that saw all data.",
        "scopes": "Best score on the sample for each scope of prepending, on the prompts that were rewired.",
    }
    page: str = _PAGE.render(
        tuned=tuned,
        title=title,
        recipe=json.dumps(tuned.recipe.to_dict(), indent=2, ensure_ascii=False),
        pictures=[(captions[name], png) for name, png in pictures.items()],
    )
    return page


def _exits(results: Sequence[ArmResult]) -> Figure:
    """Draw a panel an arm, a line a readout and map."""
    from matplotlib.figure import Figure

    full = [one for one in results if one.full]
    maps = list(dict.fromkeys(name.split(", ")[1] for one in full for name in one.curves))
    figure = Figure(figsize=(9, 3.2 * len(full)), layout="constrained")
    panels = figure.subplots(len(full), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, one in zip(panels, full, strict=True):
        for name, curve in one.curves.items():
            readout, map_ = name.split(", ")
            ticks = sorted(int(exit_) for exit_ in curve if exit_ != "None")
            scores = [curve[str(tick)] for tick in ticks]
            style = "-" if readout == "last" else "--"
            panel.plot(ticks, scores, style, marker=".", color=f"C{maps.index(map_)}", label=name)
        panel.set_title(one.arm.name, loc="left")
        panel.set_ylabel("score")
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("exit (blocks that ran)")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, ncols=4, fontsize="small", loc="outside lower center")
    return figure


def _scopes(results: Sequence[ArmResult]) -> Figure | None:
    """Draw start against stop of prepending, of the prompts that were rewired; None if none was."""
    from matplotlib.figure import Figure

    found: dict[tuple[int, int], float] = {}
    for one in results:
        prepend = one.arm.prepend
        if one.full or prepend is None or prepend.kind == "echo":
            continue
        place = (prepend.start, prepend.stop)
        found[place] = max(found.get(place, 0.0), 100 * one.score)
    if not found:
        return None
    starts, stops = sorted({start for start, _ in found}), sorted({stop for _, stop in found})
    figure = Figure(figsize=(1.6 + 1.1 * len(stops), 1.2 + 0.8 * len(starts)), layout="constrained")
    axes = figure.subplots()
    grid = [[found.get((start, stop), float("nan")) for stop in stops] for start in starts]
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(stops)), [str(stop) for stop in stops])
    axes.set_yticks(range(len(starts)), [str(start) for start in starts])
    axes.set_xlabel("stop (excluded)")
    axes.set_ylabel("start")
    low, high = min(found.values()), max(found.values())
    for (start, stop), value in found.items():
        ink = "black" if value > low + 0.6 * (high - low) else "white"  # on yellow, or on blue
        place = (stops.index(stop), starts.index(start))
        axes.text(*place, f"{value:.1f}", ha="center", va="center", color=ink, fontweight="bold")
    figure.colorbar(image, label="score on the sample")
    return figure


def analysis(attention: Sequence[SlotAttention], geometry: Sequence[Geometry]) -> Figure:
    """Draw attention on the slot over blocks, and anisotropy and effective rank over exits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 11), layout="constrained")
    panels = figure.subplots(3, 1)
    for on, style in ((False, ":"), (True, "-")):
        rows = [one for one in attention if one.prepending is on]
        word = "on" if on else "off"
        blocks = [one.block for one in rows]
        panels[0].plot(blocks, [100 * one.early for one in rows], f"C0{style}", label=f"early half, prepending {word}")
        panels[0].plot(blocks, [100 * one.late for one in rows], f"C1{style}", label=f"late half, prepending {word}")
    panels[0].set(title="Attention of the text's tokens to the slot", xlabel="block", ylabel="%")
    maps = list(dict.fromkeys(one.postprocess for one in geometry))
    for panel, name, title in (
        (panels[1], "anisotropy", "Anisotropy: mean cosine of two texts"),
        (panels[2], "effective_rank", "Effective rank of the vectors"),
    ):
        for readout, style in (("last", "-"), ("mean", "--")):
            for i, map_ in enumerate(maps):
                drawn = [one for one in geometry if (one.readout, one.postprocess) == (readout, map_) and one.exit]
                exits, values = [one.exit for one in drawn], [getattr(one, name) for one in drawn]
                panel.plot(exits, values, style, color=f"C{i}", label=f"{readout}, {map_}")
        panel.set(title=title, xlabel="exit (blocks that ran)")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
