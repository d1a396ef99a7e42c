"""Recipes: files of settings that lie under a pipeline.yaml's own keys."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from mia_attention.settings import ScoreSettings
from mia_augment.errors import ConfigError
from mia_cli.config.recipe_files import RECIPES, laid_under, recipe_meaning, recipe_settings, without
from mia_cli.config.schema import PipelineConfig, load_config, parse
from mia_cli.drawn.quickstart import SETTINGS
from mia_cli.experiments.recipe_arms import recipe_configs, recipe_variant
from mia_cli.main import main
from mia_cli.pipeline import check_judged
from mia_dpo_train.settings import TrainSettings
from mia_select.settings import Calibrate, SelectSettings


def write(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_short_says_what_it_does_and_from_which_paper_and_can_be_run(name):
    text = RECIPES[name].read_text("utf-8")
    assert len(text.splitlines()) <= 40
    meaning = recipe_meaning(name)
    assert meaning.endswith(".")
    assert any(word in meaning for word in ("arXiv", "CVPR"))
    check_judged(PipelineConfig.model_validate({"recipe": name}))


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_says_what_depends_on_data_or_model(name):
    """These stay the file's, so that recipes can be compared."""
    settings = recipe_settings(name)
    assert settings.keys() <= {"augment", "score", "select", "train"}
    assert settings.get("train", {}).keys().isdisjoint({"tuning", "learning_rate", "per_device_batch_size", "accumulation"})


def test_the_paper_s_recipe_is_the_default():
    bare, paper = PipelineConfig(), PipelineConfig.model_validate({"recipe": "paper"})
    assert paper.model_copy(update={"recipe": None}) == bare
    assert recipe_settings("paper")["train"] == {"loss": "sigmoid", "beta": 0.1, "dpo_alpha": 1.0}


def test_a_recipe_lies_under_the_file_s_own_keys(tmp_path):
    config = load_config(write(tmp_path, "recipe: own\nscore: {layer: 7}\nselect: {correct: equal, max_pairs: 5}\ntrain:\n"))
    assert config.recipe == "own"
    assert (config.score.layer, config.score.own_answer) == (7, True)
    assert (config.select.correct, config.select.chosen, config.select.max_pairs) == ("equal", "own", 5)
    assert config.select.calibrate == Calibrate(by="groups")
    assert config.train == TrainSettings()


def test_null_is_a_value_where_a_key_has_one_and_none_where_a_section_is_empty(tmp_path):
    config = load_config(write(tmp_path, "recipe: own\nscore:\nselect: {calibrate: null}\n"))
    assert config.score == ScoreSettings(layer="alone", own_answer=True)
    assert config.select.calibrate is None


def test_a_table_is_taken_whole_and_settings_within_settings_are_looked_into():
    under = {"augment": {"formats": {"sequence": 1, "grid": 1}, "grid": {"cell": 99, "gap": 7}, "sequence": {"counts": {2: 1}}}}
    said = {"augment": {"formats": {"strip": 1}, "grid": {"cell": 50}, "sequence": None}, "seed": 3}
    expected = {"formats": {"strip": 1}, "grid": {"cell": 50, "gap": 7}, "sequence": {"counts": {2: 1}}}
    assert laid_under(said, under, PipelineConfig) == {"augment": expected, "seed": 3}
    assert without(said, under, PipelineConfig) == {"augment": {"grid": {}}, "seed": 3}


def test_one_stage_s_settings_in_a_whole_file_have_the_recipe_under_them(tmp_path):
    path = write(tmp_path, "recipe: own\nselect: {max_pairs: 5}\n")
    assert parse(SelectSettings, path, "select") == load_config(path).select.model_copy(update={"seed": 0})
    assert parse(ScoreSettings, path, "score").layer == "alone"
    assert parse(TrainSettings, path, "train") == TrainSettings()


@pytest.mark.parametrize("value", ["papr", "[paper]", "3", "''"])
def test_an_unknown_recipe_is_told_with_its_line_and_all_there_are(tmp_path, value):
    path = write(tmp_path, f"seed: 1\nrecipe: {value}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert f"{path}, line 2: recipe: " in str(caught.value)
    with pytest.raises(ConfigError, match=f"recipe: expected one of {', '.join(RECIPES)}, got "):
        parse(SelectSettings, path, "select")


@pytest.mark.parametrize("command", ["init", "quickstart"])
def test_an_unknown_recipe_on_the_command_line_is_told_before_anything_is_made(tmp_path, command):
    result = CliRunner().invoke(main, [command, str(tmp_path / "new"), "--recipe", "papr"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"recipe: expected one of {', '.join(RECIPES)}, got 'papr'" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", RECIPES)
def test_init_writes_the_recipe_and_shows_its_values(tmp_path, name):
    path = tmp_path / "pipeline.yaml"
    assert CliRunner().invoke(main, ["init", str(path), "--recipe", name]).exit_code == 0
    text = path.read_text("utf-8")
    assert load_config(path).recipe == name
    if name == "own":
        assert "  #layer: alone\n" in text
        assert "  #chosen: own\n" in text


def test_in_the_quickstart_a_recipe_decides_what_it_sets_and_the_rest_suits_the_model(tmp_path):
    from mia_cli.drawn import quickstart

    path = write(tmp_path, quickstart._yaml(5, 0, "embedded", tmp_path, "own"))
    config = load_config(path)
    assert config.score.layer == "alone"
    assert config.select == load_config(write(tmp_path, "recipe: own")).select
    assert config.train.model_dump(include=set(SETTINGS["train"])) == SETTINGS["train"]
    assert config.evaluate.max_new_tokens == SETTINGS["evaluate"]["max_new_tokens"]


def test_compared_recipes_decide_what_they_set_whatever_the_file_says_and_the_rest_is_the_file_s(tmp_path):
    text = "recipe: own\nscore: {layer: 7, batch_size: 3}\nselect: {rejected: both, max_length_ratio: 9}\ntrain: {epochs: 2}\n"
    config = load_config(write(tmp_path, text), bare=True)
    assert (config.recipe, config.score.own_answer) == (None, False)
    found = recipe_configs(config, ["own", "s2h", "own"])
    assert list(found) == ["own", "s2h"]
    own = found["own"]
    assert (own.score.layer, own.score.batch_size, own.select.rejected, own.select.max_length_ratio) == ("alone", 3, "own", 9)
    assert (own.train.epochs, own.data, own.evaluate) == (2, config.data, config.evaluate)
    assert found["s2h"].score.layer == 7
    assert list(recipe_configs(config, ["all"])) == list(RECIPES)


def test_an_arm_is_what_differs_from_the_file(tmp_path):
    config = load_config(write(tmp_path, "select: {attention: false}\ntrain: {beta: 1.0}\n"), bare=True)
    arm = recipe_variant("paper", config, recipe_configs(config, ["paper"])["paper"])
    assert (dict(arm.select), dict(arm.train)) == ({"attention": True}, {"beta": 0.1})
    assert arm.title.startswith("recipe paper: The method as published")
    arm = recipe_variant("ccdpo", config, recipe_configs(config, ["ccdpo"])["ccdpo"])
    assert arm.select["formats"] == ["captions"]
    assert dict(arm.train) == {}


def test_an_unknown_recipe_to_compare_and_variants_beside_recipes_are_refused(tmp_path):
    path = write(tmp_path, "data: {source: rows.json}\n")
    result = CliRunner().invoke(main, ["ablate", str(path), "--recipes", "paper,papr"])
    assert result.exit_code == 2
    assert f"recipe: expected one of {', '.join(RECIPES)}, got 'papr'" in result.stderr
    result = CliRunner().invoke(main, ["ablate", str(path), "--recipes", "paper", "--variants", "nll_only"])
    assert (result.exit_code, "expected one of them" in result.stderr) == (2, True)


def test_asking_no_model_where_its_answers_are_needed_is_refused():
    config = PipelineConfig.model_validate({"score": {"ask": False}})
    with pytest.raises(ConfigError, match=r"need the model's answers; set score\.ask: true"):
        check_judged(config)


def test_where_no_model_is_asked_torch_is_not_even_imported(python, tmp_path):
    python(f"""
import sys
from pathlib import Path
from mia_attention import ScoreSettings, score_stage
from mia_augment import AugmentSettings, augment_dataset
from mia_augment.storage import run_stage
from mia_cli.drawn.drawn_data import write_rows
here = Path({str(tmp_path)!r})
write_rows(here, "train", 10)
augment_dataset(here / "rows.json", here, here / "samples", AugmentSettings(formats=["search"]))
made = run_stage(score_stage(here / "samples", here / "scored", ScoreSettings(ask=False), "any", lambda: 1 / 0), None)
assert made.manifest.counts["scored"] == 50, made.manifest.counts
assert "torch" not in sys.modules
""")
