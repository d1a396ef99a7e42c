"""The examples of the report: pairs and dropped samples with their pictures, boxes, scores and attention."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mia_attention import MAPS, Analysis, AttentionMap, analyze_one, read_maps
from mia_augment import Bucket, Dropped, PreferencePair, ScoredSample
from mia_augment.images import picture_opener
from mia_augment.storage import Progress, read_jsonl
from mia_select import read_selection

from mia_cli.config.schema import ReportSettings
from mia_cli.layout import Folders
from mia_cli.report.collect import DROP_WORDS, bucket_name, in_order
from mia_cli.report.thumbnails import Thumbnail, Thumbnails, heat_png

PAIR = "became a pair"
DROPPED_PER_RULE = 20
"""Dropped samples shown per rule, at most."""
KIND_WORDS = {
    "focused": "none: looked at the target",
    "sequence_confusion": "sequence confusion: looked at another picture",
    "element_interference": "element interference: attention scattered",
    "neither": "speaks of none of the pictures",
    None: "not measured",
}


@dataclass(frozen=True)
class Example:
    """A scored sample with what the selection made of it."""

    sample: ScoredSample
    outcome: str
    pair: PreferencePair | None


def examples(folders: Folders, pairs: int) -> list[Example]:
    """Up to `pairs` pairs, evenly from every format and number of parts, and some samples that each rule dropped."""
    paired, left_out = example_files(folders)
    kept = _chosen_pairs(paired, pairs)
    dropped = _chosen_drops(left_out) if pairs else []
    records: list[PreferencePair | Dropped] = [*kept, *dropped]
    wanted = {name for record in records for name in sample_ids(record)}
    samples = {s.id: s for s in read_jsonl(folders.scored / "scored.jsonl", ScoredSample) if s.id in wanted}
    found = [Example(sample, PAIR, pair) for pair in kept if (sample := _sample_of(pair, samples))]
    return found + [
        Example(sample, f"dropped: {DROP_WORDS.get(drop.rule, drop.rule)}", None)
        for drop in dropped
        if (sample := _sample_of(drop, samples))
    ]


def example_files(folders: Folders) -> tuple[Path, Path]:
    """The files whose records say which scored samples are examples."""
    return folders.pairs / "pairs.jsonl", folders.pairs / "dropped.jsonl"


def sample_ids(record: PreferencePair | Dropped) -> tuple[str, str]:
    """A pair is named after its sample; one with another picture's answer has that picture's label added (`000123~Image3`)."""
    return record.id, record.id.rpartition("~")[0]


def _sample_of(record: PreferencePair | Dropped, samples: dict[str, ScoredSample]) -> ScoredSample | None:
    return next((samples[name] for name in sample_ids(record) if name in samples), None)


def _chosen_pairs(path: Path, limit: int) -> list[PreferencePair]:
    by_bucket: dict[Bucket, list[PreferencePair]] = defaultdict(list)
    for pair in read_jsonl(path, PreferencePair):
        by_bucket[pair.format, len(pair.regions)].append(pair)
    for group in by_bucket.values():
        random.Random(0).shuffle(group)
    return list(_in_turn([by_bucket[bucket] for bucket in in_order(by_bucket)], limit))


def _chosen_drops(path: Path) -> list[Dropped]:
    """Evenly spread over the file, the same number for each rule."""
    by_rule: dict[str, list[Dropped]] = defaultdict(list)
    for drop in read_jsonl(path, Dropped):
        by_rule[drop.rule].append(drop)
    return [drop for drops in by_rule.values() for drop in drops[:: max(1, len(drops) // DROPPED_PER_RULE)][:DROPPED_PER_RULE]]


def _in_turn(groups: Sequence[list[PreferencePair]], limit: int) -> Iterator[PreferencePair]:
    taken = 0
    for index in range(max((len(group) for group in groups), default=0)):
        for group in groups:
            if index < len(group):
                if taken == limit:
                    return
                taken += 1
                yield group[index]


def gallery(folders: Folders, settings: ReportSettings, progress: Progress | None) -> dict[str, Any]:
    """What the page needs: the examples, their pictures, and what can be filtered by."""
    chosen = examples(folders, settings.pairs)
    looks = read_maps(folders.attention / MAPS)
    thumbnails = Thumbnails(picture_opener(folders.scored), settings.thumbnail)
    shown, floor = [], read_selection(folders.pairs).said_of_none_below
    for index, example in enumerate(chosen, 1):
        for name in example.sample.images:
            thumbnails.add(name, composed=len(example.sample.images) < example.sample.parts)
        shown.append(_shown(example, looks.get(example.sample.id), floor, thumbnails.made))
        if progress is not None:
            progress(index, len(chosen))
    return {
        "buckets": _buckets(chosen),
        "kinds": _names(entry["kind"] for entry in shown),
        "says": _names(entry["says"] for entry in shown),
        "outcomes": _names(entry["outcome"] for entry in shown),
        "heat": any(entry["heat"] for entry in shown),
        "told": _told(shown),
        "missing": len(thumbnails.missing),
        "thumbnails": thumbnails.made.values(),
        "data": {"pairs": shown, "thumbnails": _places(thumbnails.made)},
    }


def _places(thumbnails: dict[str, Thumbnail]) -> dict[str, dict[str, int]]:
    """Which of the page's thumbnails is whose, and how large the picture is."""
    return {
        name: {"index": index, "width": made["width"], "height": made["height"]}
        for index, (name, made) in enumerate(thumbnails.items())
    }


def _buckets(chosen: Sequence[Example]) -> list[str]:
    """What the format filter offers: a format with several numbers of parts also as a whole."""
    found = in_order({(example.sample.format, example.sample.parts) for example in chosen})
    names = [bucket_name(bucket) for bucket in found]
    several = [name for name, count in Counter(bucket[0] for bucket in found).items() if count > 1]
    return [*(f"{name}, all" for name in several), *names]


def _names(values: Iterable[str]) -> list[str]:
    return [name for name, _ in Counter(values).most_common()]


def _says(analysis: Analysis) -> str:
    """What a response says, by its words; where these tell nothing, by its likelihood under each picture alone."""
    if analysis.correct:
        return "right"
    if analysis.echoes is not None or (analysis.kind == "sequence_confusion" and analysis.about is not None):
        return "another picture's answer"
    if analysis.about is None or analysis.about == "neither":
        return "no picture's answer"
    return "mixed from several pictures" if analysis.about == "mixed" else "about the asked picture, in other words"


TOLD = {
    "attention": "its share of the attention",
    "alone": "its share of the answer's likelihood under each picture alone (whose answer it is)",
    "losses": "how the answer's log-prob changes where that picture is invisible to everything else (what it came from): the "
    "knockout gap is what it loses without the asked picture less the most it loses without another, above 0 where it came "
    "from the asked one",
}
"""What stands below a picture, in words."""


def _told(shown: Sequence[Mapping[str, Any]]) -> str:
    """What of it these examples have."""
    there = [words for name, words in TOLD.items() if any(entry[name] for entry in shown)]
    return "; ".join(there) or "its name"


def _attention(
    sample: ScoredSample, shares: Sequence[float], look: AttentionMap | None, sizes: Mapping[str, Thumbnail]
) -> list[float]:
    """Each part's share of the attention; where another readout was scored, from the map."""
    if sample.attention.layer != "alone":
        return list(shares)
    if look is None or sample.parts < 2 or any(name not in sizes for name in sample.images):
        return []
    densities = []
    for region in sample.regions:
        cells = np.asarray(look.maps[region.image])
        (rows, columns), size = cells.shape, sizes[sample.images[region.image]]
        left, top, right, bottom = region.box or (0, 0, size["width"], size["height"])
        across, down = columns / size["width"], rows / size["height"]
        inside = cells[int(top * down) : max(1, round(bottom * down)), int(left * across) : max(1, round(right * across))]
        densities.append(float(inside.mean()) if inside.size else 0.0)
    total = sum(densities)
    return [density / total for density in densities] if total > 0 else []


def _alone(sample: ScoredSample, look: AttentionMap | None) -> list[float] | None:
    """Each part's share of the response's likelihood under each picture alone; None: not measured."""
    if sample.attention.layer == "alone":
        return sample.attention.region_mass or None
    return look.alone if look else None


def knockout_gap(losses: Sequence[float | None] | None, target: int) -> float | None:
    """What a response loses without the target, less the most it loses without another part, in nats; None: not measured.

    >>> knockout_gap([0.5, 7.5], target=1), knockout_gap([0.5, None], target=1)
    (7.0, None)
    """
    known = [(part, loss) for part, loss in enumerate(losses or []) if loss is not None]
    others = [loss for part, loss in known if part != target]
    own = dict(known).get(target)
    return None if own is None or not others else own - max(others)


def _shown(example: Example, look: AttentionMap | None, floor: float | None, sizes: Mapping[str, Thumbnail]) -> dict[str, Any]:
    sample, pair = example.sample, example.pair
    analysis = analyze_one(sample, floor=floor)
    scores = pair.scores.model_dump() if pair else {"ratio": sample.attention.ratio, "perplexity": sample.perplexity}
    scores |= {"knockout_gap": knockout_gap(look.losses if look else None, sample.target)}
    return {
        "id": pair.id if pair else sample.id,
        "bucket": bucket_name((sample.format, sample.parts)),
        "kind": KIND_WORDS[analysis.kind],
        "says": _says(analysis),
        "outcome": example.outcome,
        "images": sample.images,
        "regions": [region.model_dump() for region in sample.regions],
        "attention": _attention(sample, analysis.shares, look, sizes),
        "alone": _alone(sample, look),
        "target": sample.target,
        "prompt": sample.prompt,
        "chosen": pair.chosen if pair else sample.answer or sample.own_answer or "",
        "rejected": _rejected(pair) if pair else sample.response,
        "scores": {name: value for name, value in scores.items() if value is not None},
        "losses": look.losses if look else None,
        "heat": [heat_png(np.asarray(cells)) for cells in look.maps] if look else None,
    }


def _rejected(pair: PreferencePair) -> str:
    """All that a pair rejects, in words."""
    texts = [answer.text for answer in pair.rejected_answers]
    if pair.rejected_images is not None:
        texts.append(f"{pair.chosen} (with another picture in the target's place)")
    return " | ".join(texts)
