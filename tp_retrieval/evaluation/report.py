"""What tuning and analysis found, to look at: one HTML page without any other file, and pictures as PNG.

Of tuning the score over exits, a map of prepending's start and stop, and the table of arms; of analysis the attention on
the slot, and how vectors lie.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tp_retrieval.embedding.forward.attention import SlotAttention
from tp_retrieval.evaluation.geometry import Geometry
from tp_retrieval.evaluation.tuning.tuner import ArmResult, Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; } th, td { text-align: left; padding: 0.3rem 0.6rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } tr:nth-child(even) { background: #f4f5f7; }
img { max-width: 100%; height: auto; } h2 { font-size: 1.2rem; margin-top: 2rem; }
pre { background: #f4f5f7; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere; } .figure { font-size: 1.6rem; }
"""


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
    gain = tuned.together.gain
    verdict = (
        f"The best recipe found scores {tuned.together.score} there, {gain.value:+.1f}, so it stays as it was."
        if tuned.kept_start
        else f"That is {gain.value:+.1f} over the recipe tuning began with "
        f"({tuned.together.start}), 95% from {gain.low:+.1f} to {gain.high:+.1f}"
        + ("." if gain.sure else ": too few items to be sure that it is more than chance.")
    )
    captions = {
        "exits": "Score of a single view over the exit it is read at, for the arms that saw all data.",
        "scopes": "Best score on the sample for each scope of prepending, on the prompts that were rewired.",
    }
    images = "".join(
        f'<h2>{html.escape(captions[name])}</h2><img alt="{html.escape(captions[name])}" '
        f'src="data:image/png;base64,{data}">'
        for name, data in pictures.items()
    )
    recipe = html.escape(json.dumps(tuned.recipe.to_dict(), indent=2, ensure_ascii=False))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="figure">{tuned.score} on {tuned.held_out} items that were held out</p>
<p>{html.escape(verdict)} Found by {tuned.chosen_by} other items, in {tuned.minutes:.0f} minutes; what was held out
decided only whether to change the recipe at all.</p>
{_sets(tuned)}
<h2>The recipe</h2><pre>{recipe}</pre>
{images}
<h2>Arms</h2>
<p>Scores are of the items that choices looked at, so they are a little too good. A sample is scored only against
other samples.</p>
<table><tr><th>arm</th><th>data</th><th>best views</th><th class="n">dense share</th><th class="n">score</th>
<th class="n">seconds</th></tr>{"".join(_row(one) for one in reversed(tuned.arms))}</table>
</body></html>
"""


def _sets(tuned: Tuned) -> str:
    if len(tuned.sets) == 1:
        return ""
    header = '<tr><th>set</th><th class="n">score</th><th class="n">before</th><th class="n">gain</th></tr>'
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="n">{one.score}</td><td class="n">{one.start}</td>'
        f'<td class="n">{one.gain}</td></tr>'
        for name, one in tuned.sets.items()
    )
    return f"<p>The best recipe found on what was held out of each set, whose mean counts:</p><table>{header}{rows}</table>"


def _row(one: ArmResult) -> str:
    best = one.best[0]
    views = " + ".join(f"{view.readout} at {_exit(view.exit)}, {view.postprocess} ({view.weight:g})" for view in best.views)
    cells = (html.escape(one.arm.name), "all" if one.full else "sample", views)
    share = "–" if best.dense_weight == 1 else f"{best.dense_weight:g}"
    numbers = (share, f"{100 * best.score:.1f}", f"{one.seconds:.0f}")
    return (
        "<tr>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "".join(f'<td class="n">{n}</td>' for n in numbers)
        + "</tr>"
    )


def _exit(exit_: int | None) -> str:
    return "the final norm" if exit_ is None else str(exit_)


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
