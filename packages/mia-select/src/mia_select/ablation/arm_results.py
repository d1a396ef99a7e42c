"""What came of the arms: their predictions as one comparison; and what else has to be scored before arms can be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mia_augment import ConfigError
from mia_augment.storage import read_jsonl, read_manifest

from mia_select.ablation.arm_folders import Ablation, ArmSummary, controls
from mia_select.ablation.variants import REFERENCE, SHARE, VARIANTS, Pool, Variant, needed
from mia_select.evaluation.accuracy import Prediction
from mia_select.evaluation.comparison import Outcome, compare, outcomes
from mia_select.evaluation.stage import PREDICTIONS, read_evaluation

MORE = 3
"""At most so many times the run's samples are scored in addition for a variant of one format."""


def chosen_variants(names: Sequence[str]) -> list[Variant]:
    """The variants of these names besides the whole method; no names: all.

    Raises:
        ConfigError: an unknown name.
    """
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"variant {unknown[0]!r}: expected one of {', '.join(known)}")
    return [variant for variant in VARIANTS if not names or variant.name in {REFERENCE, *names}]


def more_samples(pool: Pool, scored: Path, size: int, more: int | None) -> int:
    """How many samples to make and score for a variant of one format; 0: none would help.

    Args:
        scored: the run's folder of scored samples, at whose rate the pool's formats gave pairs.
        size: pairs wanted.
        more: most samples; None: three times as many as the run has.
    """
    manifest = read_manifest(scored)
    counts = manifest.counts if manifest else {}
    formats = pool.variant.select["formats"]
    number = needed(pool, sum(n for name, n in counts.items() if name.split("/")[0] in formats), size / SHARE)
    limit = MORE * counts.get("samples", 0) if more is None else more
    return min(number, limit) if number else 0


def compare_arms(
    summaries: Mapping[int, Sequence[ArmSummary]], evaluated: Callable[[str, int], Path]
) -> tuple[list[Outcome], Ablation]:
    """What came of every held-out question, and the comparison of all arms that could be trained with every seed.

    Args:
        summaries: seed -> its arms, as `write_arms` gives them.
        evaluated: from a variant and a seed to the folder of its evaluation.
    """
    found: dict[str, dict[int, list[Prediction]]] = {}
    flattered: str | None = None
    for seed, lines in summaries.items():
        for line in lines:
            if line.left_out is None:
                folder = evaluated(line.same_as or line.variant, seed)
                found.setdefault(line.variant, {})[seed] = list(read_jsonl(folder / PREDICTIONS, Prediction))
                flattered = flattered or read_evaluation(folder).flattered
    complete = {name: runs for name, runs in found.items() if len(runs) == len(summaries)}
    questions = outcomes(complete)
    first = list(summaries[min(summaries)])
    against = {name: control for name, control in controls(first).items() if name in complete}
    return questions, Ablation(comparison=compare(questions, against), arms=first, flattered=flattered)
