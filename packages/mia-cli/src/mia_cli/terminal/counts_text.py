"""What a stage made, in counts that add up: ``36 rows, 31 of them used; 60 samples, 7 of 67 could not be composed``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mia_cli.terminal.display import counts_line

StageCounts = Mapping[str, int]


def stage_counts(name: str, counts: StageCounts) -> str:
    """The counts of a stage's manifest for people; what is 0 goes without saying.

    >>> stage_counts("augment", {"rows": 36, "samples": 60, "skipped": 12, "rows_skipped": 5, "other_part": 4})
    '36 rows (5 left out, 4 held out, 27 used), 60 samples (7 of 67 could not be composed)'
    >>> stage_counts("score", {"samples": 310, "scored": 300, "skipped": 10, "without_ratio": 4})
    '310 samples (10 left out, 300 scored, 4 of them without a ratio)'
    """
    return _TEXTS[name](counts) if name in _TEXTS and counts else counts_line(dict(counts))


def _augmented(counts: StageCounts, other: str = "held out") -> str:
    rows, samples = counts.get("rows", 0), counts.get("samples", 0)
    refused, elsewhere = counts.get("rows_skipped", 0), counts.get("other_part", 0)
    failed, turns = counts.get("skipped", 0) - refused, counts.get("several_turns", 0)
    return ", ".join(
        [
            f"{rows} rows" + _of(("left out", refused), (other, elsewhere), ("used", _rest(rows, refused, elsewhere))),
            f"{samples} samples" + (f" ({failed} of {samples + failed} could not be composed)" if failed > 0 else ""),
            *([f"of {turns} rows with several turns only the first question is asked"] if turns else []),
        ]
    )


def _held_out(counts: StageCounts) -> str:
    return _augmented(counts, "kept for training")


_OTHER_PAIRS = {
    "held_out": "held out", "skipped": "left out", "renamed": "renamed", "end_token_removed": "without their end token",
}  # fmt: skip


def _scored(counts: StageCounts) -> str:
    samples, lost, without = counts.get("samples", 0), counts.get("skipped", 0), counts.get("without_ratio", 0)
    scored = counts.get("scored", 0)
    if not lost:
        return f"{scored} samples scored" + (f", {without} of them without a ratio" if without else "")
    return f"{samples} samples ({lost} left out, {scored} scored" + (
        f", {without} of them without a ratio)" if without else ")"
    )


def _selected(counts: StageCounts) -> str:
    pairs, candidates, samples = counts.get("pairs", 0), counts.get("candidates", 0), counts.get("samples", 0)
    of = f"{samples} samples" if candidates == samples else f"{candidates} candidates from {samples} samples"
    return f"{pairs} pairs of {of}"


def _trained(counts: StageCounts) -> str:
    steps = counts.get("steps", 0)
    told = [f"{counts.get('pairs', 0)} pairs trained on in {steps} step{'' if steps == 1 else 's'}"]
    names = (
        ("held_out", "held out"),
        ("skipped", "left out"),
        ("renamed", "renamed"),
        ("end_token_removed", "without their end token"),
    )
    return ", ".join([*told, *(f"{counts[key]} {words}" for key, words in names if counts.get(key))])


def _asked(counts: StageCounts) -> str:
    lost = counts.get("skipped", 0)
    return f"{counts.get('samples', 0)} samples asked" + (f", {lost} left out" if lost else "")


def _mapped(counts: StageCounts) -> str:
    without = counts.get("without", 0)
    return f"{counts.get('maps', 0)} maps" + (f", {without} samples without one" if without else "")


def _rest(whole: int, *parts: int) -> int:
    return whole - sum(parts) if any(parts) else 0


def _of(*parts: tuple[str, int]) -> str:
    """`` (5 left out, 31 used)``; nothing where there is only one kind."""
    told = [f"{count} {words}" for words, count in parts if count]
    return f" ({', '.join(told)})" if told else ""


_TEXTS: dict[str, Callable[[StageCounts], str]] = {
    "augment": _augmented,
    "held_out": _held_out,
    "score": _scored,
    "select": _selected,
    "train": _trained,
    "evaluate": _asked,
    "attention": _mapped,
}
