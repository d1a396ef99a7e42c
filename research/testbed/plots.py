"""The pictures of docs/does-it-work.md from research/testbed/results/: `uv run python research/testbed/plots.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "docs" / "does-it-work"
TITLES = {
    "full": "the whole method",
    "no_attention": "no attention rule",
    "reversed_attention": "attention rule reversed",
    "random_rejected": "random wrong answer as rejected",
    "confusion": "companion's answer as rejected",
    "own_and_confusion": "own and companion's answers as rejected",
    "no_post_selection": "no post-selection",
    "sequence_only": "sequences only",
    "grid_only": "grids only",
    "pic_in_pic_only": "pic-in-pic only",
    "nll_only": "likelihood of the chosen only",
}
GROUPS = ("sequence", "grid", "pic_in_pic", "single")


def read(name: str) -> dict[str, Any] | None:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def readouts(names: list[str]) -> None:
    """AUROC of every layer and kind of rows within each format and number of images, one panel a model."""
    found = {name: result for name in names if (result := read(f"readouts-{name}"))}
    figure, axes = plt.subplots(
        1, len(found), figsize=(4.6 * len(found), 5.2), sharey=True, layout="constrained", squeeze=False
    )
    keys = max((result["by_bucket"] for result in found.values()), key=len)  # of the deepest model; others lack layers
    for axis, (name, result) in zip(axes[0], found.items(), strict=True):
        rows = {key: result["by_bucket"].get(key, {}) for key in keys if key.endswith("/raw")}
        buckets = sorted({bucket for value in rows.values() for bucket in value})
        values = [[value.get(bucket, float("nan")) for bucket in buckets] for value in rows.values()]
        axis.imshow(values, vmin=0, vmax=1, cmap="RdBu_r", aspect="auto")
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value == value:
                    axis.text(
                        x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if abs(value - 0.5) > 0.3 else "k"
                    )
        axis.set_xticks(range(len(buckets)), [bucket.replace("_", "-") for bucket in buckets], rotation=60, ha="right")
        axis.set_yticks(range(len(rows)), [_readable(key) for key in rows])
        axis.set_title(name)
    figure.suptitle("Does a low ratio mean a wrong answer? AUROC, 0.5 is chance")
    save(figure, "readouts")


def _readable(key: str) -> str:
    rows, layer, _ = key.split("/")
    return f"{rows} rows, {f'layer {layer}' if layer.isdecimal() else layer}"


def gains(names: dict[str, str]) -> None:
    """Gain of each variant with its interval, one row of panels an experiment."""
    found = {name: result for name in names if (result := read(name))}
    figure, axes = plt.subplots(
        len(found),
        len(GROUPS),
        figsize=(13, 1.2 + 2.6 * len(found)),
        sharey="row",
        sharex="col",
        layout="constrained",
        squeeze=False,
    )
    for line, (name, result) in zip(axes, found.items(), strict=True):
        rows = result["by_value"]["rows"]
        variants = [v for v in dict.fromkeys(row["variant"] for row in rows) if v in TITLES][::-1]
        for axis, group in zip(line, GROUPS, strict=True):
            for y, variant in enumerate(variants):
                gain = next(row["gain"] for row in rows if (row["variant"], row["group"]) == (variant, group))
                mean, low, high = (100 * gain[key] for key in ("mean", "low", "high"))
                axis.errorbar(
                    mean, y, xerr=[[mean - low], [high - mean]], fmt="o", color="C3" if variant == "full" else "C0", capsize=3
                )
            axis.axvline(0, color="gray", linewidth=0.8)
            axis.grid(axis="x", alpha=0.3)
            axis.set_title(f"{names[name]}: {group.replace('_', '-')}", fontsize=9)
        line[0].set_yticks(range(len(variants)), [TITLES[variant] for variant in variants])
    figure.supxlabel("gain in points, 95 % interval over questions and trainings")
    save(figure, "gains")


def tradeoff(names: dict[str, str]) -> None:
    """What single pictures pay for the gain on several, one point a setting, one colour an experiment."""
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for colour, (name, title) in enumerate(names.items()):
        for number, (setting, variants) in enumerate((read(name) or {"gains": {}})["gains"].items()):
            for variant, gain in variants.items():
                if variant == "no_attention":  # the same as `full` there
                    continue
                mean = 100 * sum(gain[group]["mean"] for group in GROUPS[:3]) / 3
                label = "NLL only" if variant == "nll_only" else _beta_and_gamma(setting)
                single = 100 * gain["single"]["mean"]
                axis.plot(single, mean, "o", color=f"C{colour}", label=title if number == 0 and variant == "full" else None)
                side = "left" if variant == "nll_only" or "beta=3" in setting else "right"  # some lie close together
                offset, align = {"left": ((-7, -3), "right"), "right": ((7, -3), "left")}[side]
                axis.annotate(label, (single, mean), xytext=offset, textcoords="offset points", fontsize=8, ha=align)
    axis.axvline(0, color="gray", linewidth=0.8)
    axis.grid(alpha=0.3)
    axis.set_xlabel("single pictures, points")
    axis.set_ylabel("sequences, grids, pic-in-pics: mean gain")
    axis.margins(x=0.16, y=0.1)
    axis.legend(loc="upper left")
    save(figure, "tradeoff")


def _beta_and_gamma(setting: str) -> str:
    values = {"beta": "0.1", "gamma": "1.0", **dict(part.split("=") for part in setting.split())}
    return f"β {float(values['beta']):g}, γ {float(values['gamma']):g}"


def save(figure: Any, name: str) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET / f"{name}.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    readouts(["embedded", "1-300", "small-300", "third-300"])
    gains({"embedded-own": "embedded"})
    tradeoff(
        {
            "small-sweep": "rejected: the model's wrong answers",
            "small-sweep-confusion": "rejected: companions' answers",
            "small-sweep-both": "both",
        }
    )


if __name__ == "__main__":
    main()
