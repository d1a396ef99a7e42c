"""Fills the page from a run directory."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from mia_augment import FORMATS, Bucket, DataError
from mia_augment.storage import Manifest, Progress, atomic_write, clear_left_overs_of
from mia_select import read_selection
from mia_select.evaluation import EVALUATION, read_evaluation
from mia_select.rules import looks_elsewhere

from mia_cli.config.schema import ReportSettings
from mia_cli.layout import Folders, saved_settings
from mia_cli.report import ablation_section as ablation
from mia_cli.report import accuracy_section as accuracy
from mia_cli.report import collect, gallery
from mia_cli.report import svg as figures
from mia_cli.report.notes import short_notes
from mia_cli.report.too_little import too_little
from mia_cli.report.words.opening import RunFigures, opening
from mia_cli.runner import read_states
from mia_cli.terminal.display import counts_line, duration

CURVES = ("loss", "accuracy", "margin", "nll", "chosen_logp", "rejected_logp", "learning_rate", "grad_norm")
TITLES = {
    "accuracy": "pair accuracy",
    "nll": "NLL of chosen answers",
    "chosen_logp": "log-prob of chosen answers",
    "rejected_logp": "log-prob of rejected answers",
    "grad_norm": "gradient norm",
}
PACKAGES = ("mia-augment", "mia-attention", "mia-select", "mia-dpo-train", "mia-cli", "torch", "transformers", "peft", "pillow")


def write_report(run_dir: Path, out: Path, settings: ReportSettings, *, progress: Progress | None = None) -> int:
    """Write the report of a run directory, with as much as there is.

    Returns:
        Size of the page in bytes.

    Raises:
        DataError: no stage of the run is finished.
    """
    folders = Folders(run_dir)
    made = collect.manifests(folders)
    if not made:
        raise DataError(f"{run_dir}: no finished stage there; expected the run_dir of a `mia run`")
    found = run_figures(made, folders)
    content = dict(
        title=settings.title,
        summary=_summary(made),
        opening=opening(found),
        nothing=bool(found.too_little),
        facts=_facts(run_dir, made, folders),
        funnel=_funnel(made, folders),
        by_bucket=_by_bucket(folders) if "select" in made else None,
        skipped=_skipped(made),
        histograms=_histograms(made, folders),
        measured=_measured(made),
        notes=_notes(folders) if "select" in made else None,
        curves=_curves(folders),
        gallery=gallery.gallery(folders, settings, progress) if "select" in made and settings.pairs else None,
        stages=_stages(run_dir, made),
        settings=_settings(run_dir, made),
        versions=_versions(),
        **accuracy.accuracy_content(folders.evaluated),
        **ablation.ablation_content(run_dir),
    )
    return write_page("page.html.j2", out, content)


def write_page(template: str, out: Path, content: Mapping[str, Any]) -> int:
    """Fill a template of this folder, with style and script inside; returns the size in bytes."""
    environment = Environment(
        loader=PackageLoader("mia_cli", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = code_in
    here = Path(__file__).parent
    inside = {"css": Markup((here / "page.css").read_text("utf-8")), "script": Markup((here / "page.js").read_text("utf-8"))}
    text = environment.get_template(template).render(**content, **inside)
    clear_left_overs_of(out)
    with atomic_write(out) as file:
        file.write(text)
    return out.stat().st_size


def run_figures(made: dict[str, Manifest], folders: Folders) -> RunFigures:
    """What the first paragraph is written from."""
    return RunFigures(
        pairs=made["select"].counts.get("pairs", 0) if "select" in made else None,
        steps=made["train"].counts.get("steps") if "train" in made else None,
        evaluation=read_evaluation(folders.evaluated) if (folders.evaluated / EVALUATION).is_file() else None,
        too_little=too_little(folders),
    )


def code_in(text: str) -> Markup:
    """What stands between backticks as code; everything escaped.

    >>> str(code_in("set `a: <b>` & go"))
    'set <code>a: &lt;b&gt;</code> &amp; go'
    """
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts))


def _summary(made: dict[str, Manifest]) -> str:
    counts = {name: manifest.counts for name, manifest in made.items()}
    parts = []
    if "augment" in counts:
        rows, samples = (counts["augment"].get(name, 0) for name in ("rows", "samples"))
        parts.append(f"{rows} single-image rows became {samples} samples")
    if "select" in counts:
        parts.append(f"{counts['select'].get('pairs', 0)} preference pairs")
    model = made["score"].inputs.get("model", "").split(" ")[0] if "score" in made else ""
    return ", then ".join(parts) + (f". Model: {model}." if model else ".")


def _facts(run_dir: Path, made: dict[str, Manifest], folders: Folders) -> list[dict[str, str]]:
    """The cards at the top."""
    found = accuracy.facts(folders.evaluated)
    if "select" in made:
        selection = read_selection(folders.pairs)
        more = f"of {selection.candidates} candidates"
        found.append({"name": "Preference pairs", "value": str(selection.pairs), "more": more, "direction": ""})
    states = read_states(run_dir)
    if states:
        seconds = sum(state.seconds for state in states.values())
        more = f"in {len(states)} stages"
        found.append({"name": "Time", "value": duration(seconds), "more": more, "direction": ""})
    return found


def _funnel(made: dict[str, Manifest], folders: Folders) -> list[dict[str, Any]]:
    steps = collect.funnel(made, folders.pairs)
    top = max((step.left for step in steps), default=0) or 1
    return [{"label": s.label, "left": s.left, "lost": s.lost, "width": round(100 * s.left / top, 1)} for s in steps]


def _by_bucket(folders: Folders) -> dict[str, Any]:
    selection = read_selection(folders.pairs)
    rules = [rule.rule for rule in selection.rules if rule.dropped]
    buckets = {(b.format, b.parts): b for b in selection.buckets}
    columns = ["format", "candidates", *(collect.DROP_WORDS.get(rule, rule) for rule in rules), "pairs"]
    rows = [
        [collect.bucket_name(bucket), b.entered, *(b.dropped.get(rule, 0) for rule in rules), b.kept]
        for bucket in collect.in_order(buckets)
        if (b := buckets[bucket])
    ]
    return {"columns": columns, "rows": rows}


def _skipped(made: dict[str, Manifest]) -> list[tuple[str, int]]:
    counts = made["augment"].counts if "augment" in made else {}
    return [(name.removeprefix("skipped/"), count) for name, count in counts.items() if name.startswith("skipped/")]


def _histograms(made: dict[str, Manifest], folders: Folders) -> list[dict[str, Any]]:
    if "score" not in made:
        return []
    thresholds = collect.thresholds(folders.pairs) if "select" in made else {}
    items = []
    for bucket, ratios in collect.ratios(folders.scored).items():
        if not FORMATS[bucket[0]].several:
            continue
        title = collect.bucket_name(bucket)
        threshold = thresholds.get(bucket)
        figure = figures.histogram(title, ratios.wrong, ratios.right, threshold, chance=1 / bucket[1])
        words = [] if threshold is None else [passing(bucket, ratios.wrong, threshold)]
        words += [f"{ratios.unmeasured} could not be measured"] if ratios.unmeasured else []
        items.append({"title": title, "figure": figure, "caption": "; ".join(words)})
    return items


MEASURED = {
    "alone": (
        "Whose answer it is",
        "How likely the answer is under the asked picture alone, over the sum under each picture alone; every scored sample.",
        "threshold, below it an answer counts as another picture's",
    ),
    "consistency": (
        "How sure the model was",
        "How many of the answers that were drawn say what the answer says, for every scored sample.",
        "threshold, below it an answer counts as unsure",
    ),
}
"""Readout that is no attention -> heading, what is shown, what the threshold means."""


def _measured(made: dict[str, Manifest]) -> tuple[str, str, str]:
    """How the ratios of the histograms are called."""
    layer = made["score"].settings.get("layer") if "score" in made else None
    looked = "Attention on the asked picture over attention on all pictures, for every scored sample."
    return MEASURED.get(
        str(layer), ("Where the model looked", looked, "threshold, below it an answer counts as looking elsewhere")
    )


def passing(bucket: Bucket, wrong: Sequence[float], threshold: float) -> str:
    """How many ratios of wrong answers the attention rule keeps, by the rule's own strictness.

    >>> passing(("sequence", 2), [0.5, 0.8, 0.9], 0.8), passing(("grid", 2), [0.5, 0.8, 0.9], 0.8)
    ('2 of 3 wrong answers lie at or below 0.80', '1 of 3 wrong answers lie below 0.80')
    """
    kept = sum(looks_elsewhere(bucket[0], ratio, threshold) for ratio in wrong)
    place = "at or below" if looks_elsewhere(bucket[0], threshold, threshold) else "below"
    return f"{kept} of {len(wrong)} wrong answers lie {place} {threshold:.2f}"


def _notes(folders: Folders) -> dict[str, list[str]] | None:
    selection = read_selection(folders.pairs)
    return {"short": short_notes(selection), "all": selection.warnings} if selection.warnings else None


def _curves(folders: Folders) -> list[dict[str, Any]]:
    found = collect.curves(folders.trained / "metrics.jsonl")
    drawn = [name for name in CURVES if len(found.get(name, [])) > 1]
    return [{"title": TITLES.get(name, name.replace("_", " ")), "figure": figures.curve(name, found[name])} for name in drawn]


def _stages(run_dir: Path, made: dict[str, Manifest]) -> list[dict[str, str]]:
    states = read_states(run_dir)
    rows = []
    for name, manifest in made.items():
        seconds = states[name].seconds if name in states else manifest.seconds
        rows.append({"name": name, "time": duration(seconds), "counts": counts_line(manifest.counts)})
    return rows


def _settings(run_dir: Path, made: dict[str, Manifest]) -> str:
    value = saved_settings(run_dir) or {name: manifest.settings for name, manifest in made.items()}
    return json.dumps(value, indent=2, ensure_ascii=False)


def _versions() -> str:
    lines = [f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    return "\n".join(lines)
