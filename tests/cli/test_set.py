"""`--set KEY=VALUE` and the options of a stage's command: over what a file says, with errors that name them."""

from __future__ import annotations

import pytest
from mia_augment.errors import ConfigError
from mia_cli.commands.given_settings import configured
from mia_cli.config.schema import load_config
from mia_dpo_train.settings import TrainSettings


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text("model: some/model\nscore:\n  batch_size: 4\n  rows: question\ntrain: {lora: {r: 8}}\n")
    return path


def test_it_goes_over_the_file_and_leaves_its_neighbours(path):
    given = ["score.batch_size=8", "train.lora.alpha=16", "model.dtype=float32", "train.learning_rate=1e-4", "seed=3"]
    config = load_config(path, given=given)
    assert (config.score.batch_size, config.score.rows) == (8, "question")
    assert (config.train.lora.r, config.train.lora.alpha, config.train.learning_rate) == (8, 16, 1e-4)
    assert (config.model.name, config.model.dtype, config.seed, config.train.seed) == ("some/model", "float32", 3, 3)


def test_values_are_yaml(path):
    given = ["augment.formats=[grid]", "select.min_perplexity=null", "augment.sequence.counts={2: 1}", "select.calibrate=auto"]
    config = load_config(path, given=given)
    assert config.augment.formats == {"grid": 1.0}
    assert (config.select.min_perplexity, config.select.calibrate) == (None, "auto")
    assert config.augment.sequence.counts == {2: 1.0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("score.batchsize=8", "--set score.batchsize: unknown key 'score.batchsize'; did you mean 'batch_size'?"),
        ("score.batch_size=many", "--set score.batch_size: score.batch_size: expected a whole number, got 'many'"),
        ("nothing", "--set nothing: expected KEY=VALUE, as score.batch_size=8"),
        ("score..a=1", "expected KEY=VALUE"),
        ("seed=[1", "--set seed: not valid YAML"),
    ],
)
def test_a_mistake_names_it(path, given, said):
    with pytest.raises(ConfigError) as caught:
        load_config(path, given=[given])
    assert said in str(caught.value)


def test_a_mistake_of_the_file_still_has_its_line(path):
    path.write_text("score:\n  batch_size: many\n")
    with pytest.raises(ConfigError, match=r"line 2: score\.batch_size: expected a whole number"):
        load_config(path, given=["seed=1"])


def test_a_stage_s_command_takes_it_too_with_or_without_the_section(path):
    settings = configured(TrainSettings, path, "train", ("beta=0.5", "train.epochs=3"), {"lora.r": 4, "max_steps": 7})
    assert (settings.beta, settings.epochs, settings.lora.r, settings.max_steps) == (0.5, 3, 4, 7)
    assert configured(TrainSettings, None, "train", ("lora.r=2",), {}).lora.alpha == 256
    with pytest.raises(ConfigError, match="unknown key 'bta'; did you mean 'beta'"):
        configured(TrainSettings, None, "train", ("bta=0.5",), {})


@pytest.mark.parametrize(
    "options",
    [["--epochs", "0"], ["--learning-rate", "fast"], ["--beta", "-1"], ["--loss", "none"], ["--lora-rank", "0"]],
)
def test_options_of_a_command_are_checked_before_its_files(mia, tmp_path, options):
    (tmp_path / "pairs").mkdir()
    result = mia("train", "--pairs", tmp_path / "pairs", "--model", "embedded", "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert options[0].strip("-").replace("-rank", "") in result.stderr.lower().replace("_", "-")
    assert "pairs.jsonl" not in result.stderr
