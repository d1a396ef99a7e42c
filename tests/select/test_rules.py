"""The table of rules: one place for a rule, from which all others read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mia_augment.records import Dropped, ScoredSample
from mia_select import Selector, SelectSettings
from mia_select.rules import RULES, Candidate, Rule, table
from mia_select.rules.candidate import ChosenText
from mia_select.rules.perplexity import too_sure
from mia_select.selection import funnel, selector

MakeScored = Callable[..., ScoredSample]
README = Path(__file__).parents[2] / "packages" / "mia-select" / "README.md"


def _vowels(candidate: Candidate, settings: SelectSettings) -> float | None:
    count = sum(letter in "aeiou" for letter in candidate.rejected or "")
    return float(count) if count > 6 else None


def test_a_new_rule_needs_an_entry_of_the_table_only(make_scored: MakeScored, monkeypatch: pytest.MonkeyPatch) -> None:
    place = [rule.name for rule in RULES].index("perplexity")
    rules = (*RULES[:place], Rule("vowels", "with few vowels", test=_vowels, harsh=0.1, hint="; sing less"), *RULES[place:])
    for module in (funnel, selector):
        monkeypatch.setattr(module, "RULES", rules)
    monkeypatch.setattr(selector, "first_failure", lambda c, s, r=rules: table.first_failure(c, s, r))
    samples = [make_scored(f"s{i}", response="The colour is aubergine." if i % 2 else "Blue.") for i in range(40)]
    chosen = Selector()
    dropped = [record for record in chosen.run(samples) if isinstance(record, Dropped)]
    assert {(record.rule, record.value) for record in dropped} == {("vowels", 10.0)}
    report = chosen.report()
    assert [count.rule for count in report.rules] == [rule.name for rule in rules]
    assert (report.rules[place].entered, report.rules[place].dropped) == (40, 20)
    assert any(warning.endswith("that reached it; sing less") for warning in report.warnings)


def test_rules_name_settings_that_exist_and_no_limit_is_without_a_rule() -> None:
    read = {name for rule in RULES for name in rule.settings}
    assert read == set(SelectSettings.model_fields)


def test_the_help_of_a_setting_names_the_rules_it_decides() -> None:
    from mia_cli.config.commented_yaml import documentation

    texts = documentation(SelectSettings)
    assert texts["max_length_ratio"].endswith("not content. Rule `length_ratio`.")
    assert texts["min_perplexity"].endswith("Rules `unmeasured`, `perplexity`.")


def test_the_readme_has_the_limits_of_the_settings() -> None:
    table = README.read_text("utf-8").split("## The rules, in order")[1].split("\n\n", 2)[1].splitlines()[2:]
    told = {cells[1].strip(" `"): cells[3].split()[0] for cells in (line.split("|") for line in table) if cells[3].strip()}
    limits = {rule.name: getattr(SelectSettings(), rule.settings[-1]) for rule in RULES if rule.settings}
    numbers = {name: value for name, value in limits.items() if isinstance(value, int | float) and name in told}
    assert {name: float(told[name]) for name in numbers} == numbers
    assert set(numbers) == {"answer_too_long", "perplexity", "length_ratio", "edit_distance"}


def test_names_are_unique_and_every_rule_says_what_it_keeps() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.keeps and not (rule.test and rule.memory) for rule in RULES)
    assert [rule.name for rule in RULES if not rule.test and not rule.memory] == ["joined", "balance", "max_pairs"]


def test_the_readme_has_the_rules_in_their_order() -> None:
    section = README.read_text("utf-8").split("## The rules, in order")[1].split("\n\n", 2)[1]
    assert re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines()[2:])) == [
        rule.name for rule in RULES
    ]


def test_an_answer_as_sure_as_the_limit_is_too_sure() -> None:
    own = Candidate(format="grid", parts=4, chosen=ChosenText("red"), rejected="blue", perplexity=1.1)
    companions = Candidate(format="grid", parts=4, chosen=ChosenText("red"), rejected="blue", perplexity=1.1, own=False)
    settings = SelectSettings(min_perplexity=1.1)
    assert too_sure(own, settings) == 1.1
    assert too_sure(companions, settings) is None
    assert too_sure(replace(own, perplexity=1.2), settings) is None
    assert too_sure(own, SelectSettings(min_perplexity=None)) is None
