"""What holds for any samples and settings."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mia_augment.records import Dropped, PreferencePair, ScoredSample
from mia_select import Selector, SelectSettings
from mia_select.rules import RULES

TEXTS = st.sampled_from(["The color is red.", "the color is RED", "The color is blue.", "", "<image>", "ha " * 20, "x" * 600])


@st.composite
def samples(draw: st.DrawFn, number: int) -> ScoredSample:
    parts = draw(st.integers(2, 3))
    names = [draw(st.sampled_from(["a.jpg", "b.jpg", "c.jpg"])) for _ in range(parts)]
    return ScoredSample.model_validate(
        {
            "id": f"s{draw(st.integers(0, number))}",
            "format": "sequence",
            "images": names,
            "prompt": "<image>" * parts + " what?",
            "answer": draw(TEXTS),
            "regions": [{"image": i, "label": f"Image{i + 1}"} for i in range(parts)],
            "target": draw(st.integers(0, parts - 1)),
            "source": {"ids": names, "paths": names, "question": "what?"},
            "response": draw(TEXTS),
            "response_tokens": 3,
            "mean_logp": -0.1,
            "perplexity": draw(st.sampled_from([None, 1.0, 1.1, 2.0])),
            "attention": {
                "layer": 1,
                "rows": "generated",
                "region_mass": [],
                "image_mass": [],
                "ratio": draw(st.sampled_from([None, 0.1, 0.7, 0.8, 0.9])),
            },
            "confusions": draw(st.none() | st.lists(st.none() | TEXTS, min_size=parts, max_size=parts)),
        }
    )


SETTINGS = st.builds(
    SelectSettings,
    attention=st.booleans(),
    calibrate=st.sampled_from([None, "auto", {"keep": 0.3, "min_samples": 2}, {"by": "auroc", "min_samples": 1}]),
    rejected=st.sampled_from(["own", "confusion", "both"]),
    confusions_per_sample=st.integers(1, 2),
    balance=st.lists(st.sampled_from(["format", "parts", "target"]), unique=True),
    per_image=st.none() | st.integers(1, 2),
    max_pairs=st.none() | st.integers(1, 3),
)


@hypothesis_settings(deadline=None)
@given(st.lists(samples(12), max_size=25), SETTINGS)
def test_every_candidate_is_kept_or_dropped_once_and_the_counts_say_so(
    scored: list[ScoredSample], settings: SelectSettings
) -> None:
    selector = Selector(settings)
    results = list(selector.run(scored))
    report = selector.report()
    pairs = [record for record in results if isinstance(record, PreferencePair)]
    drops = Counter(record.rule for record in results if isinstance(record, Dropped))
    assert (report.samples, report.candidates, report.pairs) == (len(scored), len(results), len(pairs))
    assert {rule.rule: rule.dropped for rule in report.rules} == {rule.name: drops[rule.name] for rule in RULES}
    assert report.rules[0].entered == len(results)
    assert report.rules[-1].kept == len(pairs)
    assert sum(bucket.entered for bucket in report.buckets) == len(results)
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert settings.max_pairs is None or len(pairs) <= settings.max_pairs
    assert all(pair.chosen.strip() and pair.rejected.strip() and "<image>" not in pair.rejected for pair in pairs)
    again = Selector(settings)
    assert list(again.run(iter(scored))) == results
    assert again.report() == report
