"""The code of docs/extend.md runs as it stands there, and what it adds is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mia_attention.models.box_coverage import BoxCoverage
from mia_attention.models.families import FAMILIES, adapter_of
from mia_attention.readouts import READOUTS, readout_of
from mia_augment.records import Attention, Region, Sample, ScoredSample, Source
from mia_cli.config.recipe_files import RECIPES
from mia_dpo_train import losses
from mia_select import SelectSettings
from mia_select.rules.table import first_failure
from PIL import Image
from tiny_models import build

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE))
PICTURES = {name: Image.new("RGB", (56, 56), name) for name in ("red", "blue")}


@pytest.fixture(autouse=True)
def tables_as_they_were() -> Iterator[None]:
    tables: list[dict[Any, Any]] = [FAMILIES, READOUTS, RECIPES, getattr(losses, "PREFERENCE_LOSSES", {})]
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


def run(section: str, **given: Any) -> dict[str, Any]:
    """Execute a section's code blocks, one after the other; gives the names they define."""
    blocks = re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)
    assert blocks, f"{section}: no code"
    for block in blocks:
        exec(compile(block, f"{PAGE}: {section}", "exec"), given)
    return given


def sample() -> Sample:
    names = list(PICTURES)
    return Sample(
        id="1", format="sequence", images=names, prompt="Image1:<image>\nImage2:<image>\nIn Image2, what is on the left?",
        answer="two red cats", regions=[Region(image=0, label="Image1"), Region(image=1, label="Image2")], target=1,
        source=Source(ids=["1", "2"], paths=names, question="What is on the left?"),
    )  # fmt: skip


def scored(response: str, name: str = "1") -> ScoredSample:
    attention = Attention(layer=2, rows="generated", region_mass=[0.4, 0.1], image_mass=[0.4, 0.1], ratio=0.2)
    return ScoredSample(
        **dict(sample(), id=name), response=response, response_tokens=3, mean_logp=-0.5, perplexity=1.65, attention=attention
    )


def test_a_format() -> None:
    made = run("A format")
    row = made["column"]
    composed = row.compose(
        [Image.new("RGB", (80, 40), "red"), Image.new("RGB", (40, 30), "blue")], None, Image.Resampling.LANCZOS
    )
    assert composed.boxes == ((0, 0, 40, 20), (0, 20, 40, 50))
    assert [composed.image.getpixel((box[0], box[1])) for box in composed.boxes] == [(255, 0, 0), (0, 0, 255)]
    assert (row.title_of(3), row.labels(2), row.several) == ("column 3", ["first", "second"], True)


def test_a_model_family() -> None:
    run("A model family")
    llava = build("llava", strong=True)
    covered = BoxCoverage(llava.model, llava.processor)((56, 56), (0, 0, 28, 56), tokens=16, several=False)
    llava.model.config.model_type = "my_model_type"
    mine = BoxCoverage(llava.model, llava.processor)((56, 56), (0, 0, 28, 56), tokens=16, several=False)
    assert mine.sum() == 8
    torch.testing.assert_close(mine, covered)
    llava.model.config.model_type = "another_model_type"
    assert type(adapter_of(llava.model)).__name__ == "MyAdapter"


def test_a_readout() -> None:
    llava = build("llava", strong=True)
    given = {"samples": [sample()], "model": llava.model, "processor": llava.processor, "open_image": PICTURES.__getitem__}
    made = run("A readout", **given)
    layers = llava.model.config.text_config.num_hidden_layers
    assert readout_of(llava.model, SimpleNamespace(layer="last_quarter")) == layers - 1  # one of four
    assert made["scored"].attention.layer == layers - 1


def test_a_selection_rule() -> None:
    from mia_select.rules.candidate import Candidate, ChosenText

    made = run("A selection rule", scored_samples=[scored("cats"), scored("one blue dog", "2")])
    assert (len(made["pairs"]), [pair.rejected for pair in made["kept"]]) == (2, ["one blue dog"])
    settings = SelectSettings()

    def failed(answer: str) -> object:
        chosen = ChosenText("two red cats")
        candidate = Candidate(
            format="sequence", parts=2, chosen=chosen, rejected=answer, ratio=0.2, perplexity=1.6, threshold=0.8
        )
        return first_failure(candidate, settings, made["rules"])

    assert (failed("dogs"), failed("one blue dog")) == (("too_few_words", 1.0), None)


def test_a_loss() -> None:
    made = run("A loss")
    policy, reference = torch.tensor([[-1.0], [-3.0]]), torch.tensor([[-2.0], [-2.0]])  # h = (-1 + 2) - (-3 + 2) = 2
    lengths = torch.tensor([[2], [2]])
    settings = made["settings"].model_copy(update={"beta": 0.5, "gamma": 0.0})
    found = losses.training_loss(policy, reference, lengths, settings=settings, pairs=1, chosen_tokens=2)
    assert found.loss.item() == pytest.approx(0.36787944)  # exp(-0.5 * 2)


def test_a_variant(capsys: pytest.CaptureFixture[str]) -> None:
    long = scored("one blue dog").model_copy(update={"answer": "two red cats on the green left", "id": "2"})
    run("A variant", scored_samples=[scored("one blue dog"), long])
    assert capsys.readouterr().out.startswith("1 pairs;")


def test_no_section_with_code_is_left_out() -> None:
    tested = {name.removeprefix("test_").replace("_", " ") for name in globals() if name.startswith("test_a_")}
    assert {title.lower() for title, text in SECTIONS.items() if "```python" in text} == tested


def test_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = run("A recipe")["config"]
    assert config.augment.formats == {"search": 1}
    assert (config.score.ask, config.select.rejected, config.select.max_pairs) == (False, "built", 500)
