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
from tp_retrieval.evaluation.tuning.log import PromptResult
from tp_retrieval.evaluation.tuning.tuner import FrontierPoint, Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE = Template(
    Path(__file__).with_name("report.html").read_text(encoding="utf-8"),
    autoescape=True,
    trim_blocks=True,
    undefined=StrictUndefined,
)


def write(tuned: Tuned, recipe_file: Path, title: str) -> list[Path]:
    """Write the recipe, and beside it `NAME.fast.json`, `NAME.html` and a PNG a picture; return the files."""
    recipe_file.write_text(tuned.recipe.to_json(), encoding="utf-8")
    fast = recipe_file.with_suffix(".fast.json")
    fast.write_text(tuned.fast.to_json(), encoding="utf-8")
    pictures = {"frontier": _frontier(tuned.frontier), "exits": _exits(tuned.results)}
    scopes = _scopes(tuned.results)
    if scopes is not None:
        pictures["scopes"] = scopes
    files, encoded = [recipe_file, fast], {}
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
        "frontier": "Held-out score over speed: the tuned recipe, and cheaper ones that were best where views were chosen.",
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


def _frontier(points: Sequence[FrontierPoint]) -> Figure:
    """Draw the score with its interval over the documents embedded in a second."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    speeds = [point.texts_a_second for point in points]
    scores = [point.score.value for point in points]
    below, above = ([abs(getattr(point.score, end) - point.score.value) for point in points] for end in ("low", "high"))
    axes.errorbar(speeds, scores, (below, above), fmt="o", capsize=3)
    for point in points:
        axes.annotate(point.cost, (point.texts_a_second, point.score.value), xytext=(6, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="documents embedded in a second on this machine", ylabel="held-out score")
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    return figure


def _exits(results: Sequence[PromptResult]) -> Figure:
    """Draw a panel a prompt, a line a readout and map."""
    from matplotlib.figure import Figure

    full = [result for result in results if result.full]
    maps = list(dict.fromkeys(name.split(", ")[1] for result in full for name in result.curves))
    figure = Figure(figsize=(9, 3.2 * len(full)), layout="constrained")
    panels = figure.subplots(len(full), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, result in zip(panels, full, strict=True):
        for name, curve in result.curves.items():
            readout, map_ = name.split(", ")
            ticks = sorted(int(exit_) for exit_ in curve if exit_ != "None")
            scores = [curve[str(tick)] for tick in ticks]
            style = "-" if readout == "last" else "--"
            panel.plot(ticks, scores, style, marker=".", color=f"C{maps.index(map_)}", label=name)
        panel.set_title(result.prompt.name, loc="left")
        panel.set_ylabel("score")
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("exit (blocks that ran)")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, ncols=4, fontsize="small", loc="outside lower center")
    return figure


def _scopes(results: Sequence[PromptResult]) -> Figure | None:
    """Draw start against stop of prepending; return None if no prompt had any."""
    from matplotlib.figure import Figure

    scores: dict[tuple[int, int], float] = {}
    for result in results:
        prepend = result.prompt.prepend
        if result.full or prepend is None or prepend.kind == "echo":
            continue
        scope = (prepend.start, prepend.stop)
        scores[scope] = max(scores.get(scope, 0.0), 100 * result.score)
    if not scores:
        return None
    starts, stops = sorted({start for start, _ in scores}), sorted({stop for _, stop in scores})
    figure = Figure(figsize=(1.6 + 1.1 * len(stops), 1.2 + 0.8 * len(starts)), layout="constrained")
    axes = figure.subplots()
    grid = [[scores.get((start, stop), float("nan")) for stop in stops] for start in starts]
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(stops)), [str(stop) for stop in stops])
    axes.set_yticks(range(len(starts)), [str(start) for start in starts])
    axes.set_xlabel("stop (excluded)")
    axes.set_ylabel("start")
    low, high = min(scores.values()), max(scores.values())
    for (start, stop), value in scores.items():
        ink = "black" if value > low + 0.6 * (high - low) else "white"  # on yellow, or on blue
        cell = (stops.index(stop), starts.index(start))
        axes.text(*cell, f"{value:.1f}", ha="center", va="center", color=ink, fontweight="bold")
    figure.colorbar(image, label="score on the sample")
    return figure


def analysis(attention: Sequence[SlotAttention], geometry: Sequence[Geometry]) -> Figure:
    """Draw attention on the slot over blocks, and anisotropy and effective rank over exits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 11), layout="constrained")
    panels = figure.subplots(3, 1)
    for on, style in ((False, ":"), (True, "-")):
        rows = [row for row in attention if row.prepending is on]
        word = "on" if on else "off"
        blocks = [row.block for row in rows]
        panels[0].plot(blocks, [100 * row.early for row in rows], f"C0{style}", label=f"early half, prepending {word}")
        panels[0].plot(blocks, [100 * row.late for row in rows], f"C1{style}", label=f"late half, prepending {word}")
    panels[0].set(title="Attention of the text's tokens to the slot", xlabel="block", ylabel="%")
    maps = list(dict.fromkeys(view.postprocess for view in geometry))
    for panel, name, title in (
        (panels[1], "anisotropy", "Anisotropy: mean cosine of two texts"),
        (panels[2], "effective_rank", "Effective rank of the vectors"),
    ):
        for readout, style in (("last", "-"), ("mean", "--")):
            for i, map_ in enumerate(maps):
                drawn = [view for view in geometry if (view.readout, view.postprocess) == (readout, map_) and view.exit]
                exits, values = [view.exit for view in drawn], [getattr(view, name) for view in drawn]
                panel.plot(exits, values, style, color=f"C{i}", label=f"{readout}, {map_}")
        panel.set(title=title, xlabel="exit (blocks that ran)")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
