"""Figures of attention (needs matplotlib: ``pip install mia-attention[plot]``).

Each function returns a matplotlib figure and shows or saves nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mia_augment import Attention, Sample, ScoredSample

from mia_attention.heads.head_choice import HeadChoice
from mia_attention.measure.layer_choice import LayerChoice
from mia_attention.measure.maps import Look
from mia_attention.states.image_words import ImageWords

TARGET, OTHER, ACCENT = "#d95f02", "#7570b3", "#1b9e77"
BINS = 20
LETTERS = 11
"""Of a title that fit into an inch."""


def _pyplot() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'mia-attention[plot]'") from error
    return Figure


def plot_look(look: Look, *, title: str | None = None) -> Any:
    """The pictures of one answer with each part's box and share of attention; below them the attention, one scale for all.

    Drawn is the attention of a cell by its share of its picture's area: how many pixels a picture has changes nothing.
    """
    count = len(look.pictures)
    figure = _pyplot()(figsize=(3.4 * count + 0.8, 7.2), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    densities = [mass * mass.size for mass in look.maps]  # per picture area: the cells of a picture are of equal size
    top = max(float(density.max()) for density in densities) or 1.0
    drawn = None
    for index, (picture, density) in enumerate(zip(look.pictures, densities, strict=True)):
        extent = (0, picture.width, picture.height, 0)
        axes[0, index].imshow(picture, extent=extent)
        drawn = axes[1, index].imshow(density / top, cmap="viridis", extent=extent, vmin=0, vmax=1, aspect="equal")
        for axis in axes[:, index]:
            axis.set_axis_off()
            _boxes(axis, look.scored, index)
    figure.colorbar(drawn, ax=list(axes[1]), shrink=0.8, label="attention per area, parts of the highest")
    scored = look.scored
    ratio = "none" if scored.attention.ratio is None else f"{scored.attention.ratio:.2f}"
    question = scored.prompt.split("<image>")[-1].strip()
    text = f"{question}\nanswer: {scored.response or '(empty)'}\ntruth: {scored.answer}   ratio: {ratio}"
    width = int(figure.get_figwidth() * LETTERS)
    lines = [line for whole in (title or text).splitlines() for line in textwrap.wrap(whole, width) or [""]]
    figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)
    return figure


def plot_words(found: ImageWords, layer: int, *, least: float = 0.05) -> Any:
    """The likeliest word of each visual token in a layer, written over the picture; fainter where it is less likely.

    Args:
        layer: one of those that were read.
        least: probability below which a token's word is left out.
    """
    figure = _pyplot()(figsize=(5.2 * len(found.pictures), 5.2), layout="constrained")
    axes = figure.subplots(1, len(found.pictures), squeeze=False)[0]
    for axis, picture, label, tokens in zip(axes, found.pictures, found.labels, found.tokens[layer], strict=True):
        axis.imshow(np.asarray(picture) // 2 + 127, extent=(0, picture.width, picture.height, 0))
        axis.set_axis_off()
        axis.set_title(f"{label}, layer {layer}", fontsize=10)
        size = min(11.0, 300 / max(len(tokens) ** 0.5, 1) / 4)
        for token in tokens:
            if token.place is None or token.chances[0] < least:
                continue
            left, top, right, bottom = token.place
            axis.text(
                (left + right) / 2, (top + bottom) / 2, token.words[0] or "\u2423", fontsize=size, ha="center", va="center",
                alpha=0.35 + 0.65 * token.chances[0], color="black", parse_math=False, clip_on=True,
            )  # fmt: skip
    return figure


def plot_profile(profile: Sequence[tuple[Sample, str, dict[int, Attention]]], choice: LayerChoice | None = None) -> Any:
    """Mean ratio of every layer by format and number of images (`layer_profile`); with a `choice`, also each layer's AUROC."""
    figure = _pyplot()(figsize=(8, 6 if choice else 3.6), layout="constrained")
    axes = figure.subplots(2 if choice else 1, 1, squeeze=False, sharex=True)[:, 0]
    groups: dict[str, list[dict[int, Attention]]] = {}
    for sample, _, attentions in profile:
        groups.setdefault(f"{sample.format}/{sample.parts}", []).append(attentions)
    for name in sorted(groups):
        rows = groups[name]
        layers = sorted(rows[0])
        means = [_mean([row[layer].ratio for row in rows]) for layer in layers]
        axes[0].plot(
            layers, means, marker="o", markersize=3, label=f"{name} (n={len(rows)})", color=_colour(sorted(groups), name)
        )
    axes[0].set_ylabel("mean ratio on the target")
    axes[0].set_ylim(0, 1)
    axes[0].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    if choice:
        scores = sorted(choice.scores, key=lambda score: int(score.layer))
        middle = np.array([score.auroc for score in scores])
        errors = np.array([[max(s.auroc - s.low, 0) for s in scores], [max(s.high - s.auroc, 0) for s in scores]])
        axes[1].errorbar([int(s.layer) for s in scores], middle, yerr=errors, fmt="o", capsize=3, color=OTHER)
        axes[1].axhline(0.5, color="gray", linestyle=":", linewidth=1)
        axes[1].axvline(choice.layer, color=TARGET, linewidth=1, label=f"chosen: layer {choice.layer}")
        axes[1].set_ylabel("AUROC (low ratio: wrong)")
        axes[1].legend(fontsize=8)
    axes[-1].set_xlabel("layer")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def plot_heads(found: HeadChoice) -> Any:
    """What every head tells on the samples that heads were chosen on, layers by heads; the chosen ones are framed."""
    from matplotlib.patches import Rectangle

    layers = sorted({layer for (layer, _), _ in found.scores})
    heads = max(head for (_, head), _ in found.scores) + 1
    grid = np.full((len(layers), heads), np.nan)
    for (layer, head), value in found.scores:
        grid[layers.index(layer), head] = value
    figure = _pyplot()(figsize=(0.55 * heads + 2.6, 0.45 * len(layers) + 1.8), layout="constrained")
    axis = figure.subplots()
    far = max(float(np.nanmax(np.abs(grid - 0.5))), 0.05)
    drawn = axis.imshow(grid, cmap="PuOr_r", vmin=0.5 - far, vmax=0.5 + far, aspect="auto")
    for layer, head in found.heads:
        corner = (head - 0.5, layers.index(layer) - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=ACCENT, linewidth=2.5))
    axis.set(xlabel="head", ylabel="layer", yticks=range(len(layers)), yticklabels=layers)
    figure.colorbar(drawn, ax=axis, label="AUROC (0.5: chance)")
    told = (
        f"{', '.join(f'{layer}.{head}' for layer, head in found.heads)}: {found.auroc:.2f} [{found.low:.2f}, {found.high:.2f}]"
    )
    axis.set_title(f"{told}\non {found.samples} samples they were not chosen on", fontsize=10)
    return figure


def plot_ratios(scored: Sequence[ScoredSample], thresholds: Mapping[str, float] | None = None) -> Any:
    """Histograms of the ratio by format and number of images (the paper's figure 5).

    Args:
        scored: samples with a ratio; others are counted in the title.
        thresholds: by ``format/parts`` or ``format``: answers below it are suspected.
    """
    groups: dict[str, list[float]] = {}
    missing = 0
    for sample in scored:
        if sample.attention.ratio is None:
            missing += 1
        else:
            groups.setdefault(f"{sample.format}/{sample.parts}", []).append(sample.attention.ratio)
    names = sorted(groups)
    columns = min(3, max(1, len(names)))
    rows = -(-len(names) // columns) or 1
    figure = _pyplot()(figsize=(3.3 * columns, 2.5 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axis, name in zip(axes, names, strict=False):
        axis.hist(groups[name], bins=BINS, range=(0, 1), color=OTHER)
        _threshold(axis, thresholds or {}, name, groups[name])
        axis.set_title(f"{name} (n={len(groups[name])})", fontsize=9)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis in axes[max(0, len(names) - columns) : len(names)]:
        axis.tick_params(labelbottom=True)
    figure.supxlabel("attention ratio on the target", fontsize=9)
    figure.supylabel("answers", fontsize=9)
    figure.suptitle(f"{missing} without a ratio" if missing else "", fontsize=8)
    return figure


def plot_before_after(
    before: Sequence[ScoredSample], after: Sequence[ScoredSample], names: tuple[str, str] = ("before", "after")
) -> Any:
    """The ratio of the same samples by two models (the paper's figure 6): a point per sample, and the mean of each group.

    Samples are matched by id; those that only one side has measured are left out.
    """
    later = {sample.id: sample.attention.ratio for sample in after}
    groups: dict[str, list[tuple[float, float]]] = {}
    for sample in before:
        first, second = sample.attention.ratio, later.get(sample.id)
        if first is not None and second is not None:
            groups.setdefault(f"{sample.format}/{sample.parts}", []).append((first, second))
    figure = _pyplot()(figsize=(11, 4.2), layout="constrained")
    scatter, bars = figure.subplots(1, 2)
    order = sorted(groups)
    for name in order:
        points = np.array(groups[name])
        scatter.scatter(
            points[:, 0], points[:, 1], s=8, alpha=0.7, label=f"{name} (n={len(points)})", color=_colour(order, name)
        )
    scatter.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1)
    scatter.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"ratio {names[0]}", ylabel=f"ratio {names[1]}", aspect="equal")
    scatter.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    positions = np.arange(len(order))
    for offset, (side, name) in enumerate(zip((0, 1), names, strict=True)):
        means = [float(np.mean([pair[side] for pair in groups[group]])) for group in order]
        bars.bar(positions + (offset - 0.5) * 0.38, means, width=0.38, color=(OTHER, ACCENT)[offset], label=name)
    bars.set_xticks(positions, order, rotation=40, fontsize=8, ha="right")
    bars.set(ylim=(0, 1), ylabel="mean ratio on the target")
    bars.legend(fontsize=8)
    return figure


def _colour(names: Sequence[str], name: str) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"](list(names).index(name) % 20)


def _boxes(axis: Any, scored: ScoredSample, image: int) -> None:
    from matplotlib.patches import Rectangle

    masses = scored.attention.region_mass or [float("nan")] * scored.parts
    for index, region in enumerate(scored.regions):
        if region.image != image:
            continue
        colour = TARGET if index == scored.target else OTHER
        label = f"{region.label}{' (target)' if index == scored.target else ''}: {masses[index]:.3f}"
        if region.box is None:
            axis.set_title(label, color=colour, fontsize=9)
            continue
        left, top, right, bottom = region.box
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2))
        axis.text(
            left, bottom, label, color="white", fontsize=7, va="bottom", bbox={"facecolor": colour, "pad": 1, "linewidth": 0}
        )


def _threshold(axis: Any, thresholds: Mapping[str, float], name: str, ratios: Sequence[float]) -> None:
    threshold = thresholds.get(name, thresholds.get(name.split("/")[0]))
    if threshold is None:
        return
    below = sum(ratio < threshold for ratio in ratios)
    axis.axvline(threshold, color=TARGET, linewidth=1.5)
    top = axis.get_ylim()[1]
    axis.text(
        threshold,
        top,
        f" {threshold:g}: {below} below",
        color=TARGET,
        fontsize=7,
        va="top",
        ha="right" if threshold > 0.6 else "left",
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
