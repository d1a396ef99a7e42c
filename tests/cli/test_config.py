"""The settings file: what it may say, and what a mistake in it leads to."""

from pathlib import Path

import pytest
import yaml
from mia_attention.settings import ScoreSettings
from mia_augment.errors import ConfigError
from mia_augment.settings import AugmentSettings
from mia_cli.config.commented_yaml import commented_yaml, entries
from mia_cli.config.renamed_keys import RENAMED
from mia_cli.config.schema import PipelineConfig, build, load_config, parse
from mia_dpo_train.settings import TrainSettings
from mia_select.settings import SelectSettings


def write(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text))
    return str(caught.value)


def test_an_empty_file_gives_the_defaults(tmp_path):
    config = load_config(write(tmp_path, ""))
    assert config.train == PipelineConfig().train
    assert config.select.thresholds.sequence == {2: 0.8, 3: 0.7, 4: 0.6, 5: 0.6}


def test_a_section_without_entries_has_its_defaults(tmp_path):
    assert load_config(write(tmp_path, "score:\ntrain:\n")).score == PipelineConfig().score


@pytest.fixture
def renamed(monkeypatch):
    monkeypatch.setitem(RENAMED, "train.step_size", "learning_rate")
    monkeypatch.setitem(RENAMED, "augment.grid.gutter", "gap")


def test_a_key_of_an_earlier_version_goes_on_working_and_its_name_of_now_is_told(tmp_path, renamed, caplog):
    config = load_config(write(tmp_path, "seed: 1\ntrain: {step_size: 0.5}\naugment:\n  grid: {gutter: 7}\n"))
    assert (config.train.learning_rate, config.augment.grid.gap) == (0.5, 7)
    assert f"{tmp_path / 'pipeline.yaml'}: train.step_size is called 'learning_rate' now" in caplog.text
    assert "augment.grid.gutter is called 'gap' now" in caplog.text


@pytest.mark.parametrize("text", ["step_size: 0.5", "run_dir: x\ntrain:\n  step_size: 0.5"])
def test_it_goes_on_working_in_the_settings_of_one_stage(tmp_path, renamed, text):
    assert parse(TrainSettings, write(tmp_path, text), "train").learning_rate == 0.5


def test_a_bad_value_under_the_old_name_is_told_with_its_line(tmp_path, renamed):
    assert "line 3: train.learning_rate: " in message(tmp_path, "seed: 1\ntrain:\n  step_size: fast\n")


def test_a_key_under_both_names_is_refused(tmp_path, renamed):
    expected = "train.step_size is called 'learning_rate' now, and both are there; delete 'step_size'"
    assert expected in message(tmp_path, "train: {step_size: 0.5, learning_rate: 0.1}\n")


def test_relative_paths_are_relative_to_the_file(tmp_path):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "my-model").mkdir()
    text = "run_dir: out\ndata: {source: ../rows.json, image_root: pics}\nmodel: my-model\nevaluate: {source: /abs/t.json}\n"
    config = load_config(write(folder, text))
    assert config.run_dir == folder / "out"
    assert config.data.source == tmp_path / "deep" / "rows.json"
    assert config.data.image_root == folder / "pics"
    assert config.model.name == str(folder / "my-model")
    assert config.evaluate.source == Path("/abs/t.json")


@pytest.mark.parametrize("name", ["embedded", "llava-hf/llava-1.5-7b-hf"])
def test_names_that_are_no_folder_stay(tmp_path, name):
    assert load_config(write(tmp_path, f"model: {name}\n")).model.name == name


def test_the_seed_reaches_the_stages_that_have_none_of_their_own(tmp_path):
    config = load_config(write(tmp_path, "seed: 7\ntrain: {seed: 3}\n"))
    assert (config.score.seed, config.select.seed, config.train.seed) == (7, 7, 3)


@pytest.mark.parametrize(
    ("text", "line", "key", "nearest"),
    [
        ("run_dirr: x\n", 1, "run_dirr", "run_dir"),
        ("seed: 1\naugment:\n  fromats: [grid]\n", 3, "augment.fromats", "formats"),
        ("augment:\n  sequence:\n    count: {2: 1}\n", 3, "augment.sequence.count", "counts"),
        ("select: {calibrate: {kep: 0.5}}\n", 1, "select.calibrate.kep", "keep"),
        ("train:\n  beta: 0.1\n  lora: {rr: 8}\n", 3, "train.lora.rr", "r"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(tmp_path, text, line, key, nearest):
    said = message(tmp_path, text)
    assert f"pipeline.yaml, line {line}: unknown key '{key}'; did you mean '{nearest}'?" in said
    assert len(said.splitlines()) == 1


def test_a_key_like_no_other_gets_the_list_but_no_guess(tmp_path):
    said = message(tmp_path, "select: {zzzqqq: 1}\n")
    assert "did you mean" not in said
    assert "thresholds" in said


def test_all_mistakes_are_told_at_once(tmp_path):
    said = message(tmp_path, "seed: many\ntrain: {beta: -1}\nmodl: x\n").splitlines()
    assert len(said) == 3
    assert any("line 2: train.beta" in line and "greater than 0" in line and "-1" in line for line in said)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    assert "expected keys and values" in message(tmp_path, text)


def test_broken_yaml_is_told_with_its_place(tmp_path):
    assert "not valid YAML" in message(tmp_path, "a: [1\nb: 2\n")


def test_yaml_tags_that_would_run_code_are_refused(tmp_path):
    mark = tmp_path / "ran"
    assert "not valid YAML" in message(tmp_path, f"run_dir: !!python/object/apply:os.mkdir ['{mark}']\n")
    assert not mark.exists()


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="mia init"):
        load_config(tmp_path / "none.yaml")


def test_a_stage_reads_its_section_or_a_file_of_its_own(tmp_path):
    whole = write(tmp_path, "run_dir: x\nselect: {min_perplexity: 1.5}\n")
    assert parse(SelectSettings, whole, "select").min_perplexity == 1.5
    own = tmp_path / "select.yaml"
    own.write_text("min_perplexity: 2\n")
    assert parse(SelectSettings, own, "select").min_perplexity == 2
    without = write(tmp_path, "run_dir: x\n")
    assert parse(SelectSettings, without, "select") == SelectSettings()


def test_the_written_file_sets_nothing_but_what_was_asked(tmp_path):
    config = load_config(write(tmp_path, commented_yaml({"seed": 5})))
    assert config == PipelineConfig(seed=5).resolved(tmp_path)


def test_every_commented_line_shows_the_default(tmp_path):
    """Taking away every `#` in front of a key must change nothing."""
    lines = commented_yaml({}).splitlines()
    keys = [line.replace("#", "", 1) for line in lines if line.strip() and not line.strip().startswith("# ")]
    path = write(tmp_path, "\n".join(keys))
    assert set(yaml.safe_load(path.read_text())["train"]) == set(TrainSettings.model_fields)
    assert load_config(path).model_dump() == PipelineConfig().resolved(tmp_path).model_dump()


def test_every_setting_is_explained():
    unexplained = [name for name, _, _, text in entries(PipelineConfig) if not text and name.count(".") < 2]
    assert unexplained == []


def test_init_writes_a_file_that_loads(mia, tmp_path):
    path = tmp_path / "new" / "pipeline.yaml"
    assert mia("init", path, "--source", "data/rows.json").exit_code == 0
    assert load_config(path).data.source == path.parent / "data" / "rows.json"


def test_init_overwrites_only_when_told(mia, tmp_path):
    path = write(tmp_path, "seed: 1\n")
    result = mia("init", path)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert path.read_text() == "seed: 1\n"
    assert mia("init", path, "--force").exit_code == 0
    assert path.read_text() != "seed: 1\n"


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(b"run_dir: \xff\xfe")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)


def test_null_in_a_stages_file_turns_a_rule_off_and_options_come_first(tmp_path):
    from mia_attention.settings import ScoreSettings
    from mia_cli.commands.given_settings import configured
    from mia_select.settings import SelectSettings

    path = tmp_path / "select.yaml"
    path.write_text("min_perplexity: null\nmax_length_ratio: 9\n")
    settings = configured(SelectSettings, path, "select", (), {})
    assert (settings.min_perplexity, settings.max_length_ratio, settings.min_edit_distance) == (None, 9, 0.02)
    path.write_text("batch_size: 3\nmax_new_tokens: 7\n")
    settings = configured(ScoreSettings, path, "score", (), {"batch_size": 5, "max_new_tokens": None})
    assert (settings.batch_size, settings.max_new_tokens) == (5, 7)


WORDS_OF_PYDANTIC = (
    "Input should",
    "Value error",
    "valid ",
    "[key]",
    "literal[",
    "list[int]",
    "Calibrate",
    "instance of",
    "unable to",
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("augment: {formats: {sequence: 1, nope: 2}}\n", "augment.formats.nope: expected 'sequence', 'grid',"),
        ("augment: {formats: [nope]}\n", "augment.formats: expected 'sequence', 'grid',"),
        (
            "augment:\n  sequence: {counts: {two: 1}}\n",
            "line 2: augment.sequence.counts.two: expected a whole number, got 'two'",
        ),
        ("score: {layer: fooo}\n", "score.layer: expected a whole number, or a list, or 'middle', 'rollout',"),
        ("score: {layer: [1, x]}\n", "score.layer.1: expected a whole number, got 'x'"),
        ("score: {layer: -1}\n", "score: layer: expected layers counted from 0, got [-1]"),
        ("score: {heads: [[1]], layer: heads}\n", "score.heads.0.1: is missing"),
        ("select: {calibrate: 3}\n", "select.calibrate: expected keys and values, or 'auto', got 3"),
        ("select: {calibrate: {keep: 7}}\n", "select.calibrate.keep: expected at most 1.0, got 7"),
        ("select: {attention: maybe}\n", "select.attention: expected true or false, or 'reversed', got 'maybe'"),
        (
            "select: {thresholds: {sequence: {2: 7}}}\n",
            "select.thresholds.sequence: expected a threshold from 0 to 1",
        ),
        ("train: {loss: foo}\n", "train.loss: expected one of sigmoid, ipo,"),
        ("train: {loss: [{weight: 1}]}\n", "train.loss.0.name: is missing"),
        ("train: {epochs: 0}\n", "train.epochs: expected at least 1, got 0"),
        ("train: {lora: {r: x}}\n", "train.lora.r: expected a whole number, got 'x'"),
        ("train: {gradient_checkpointing: 7}\n", "train.gradient_checkpointing: expected true or false, got 7"),
        ("data: {source: [1]}\n", "data.source: expected a path, got [1]"),
        ("launch: {processes: many}\n", "launch.processes: expected a whole number, or 'auto', got 'many'"),
        ("train: 5\n", "train: expected keys and values, got 5"),
        ("train: {tuning: qlora}\n", "train.tuning is qlora and model.quantization is none"),
    ],
)
def test_a_bad_value_is_told_in_our_words(tmp_path, text, said):
    shown = message(tmp_path, text)
    assert said in shown
    assert len(shown.splitlines()) == 1
    assert [word for word in WORDS_OF_PYDANTIC if word in shown] == []


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (AugmentSettings, {"formats": ["sequnce"]}, "formats.sequnce: expected 'sequence', 'grid',"),
        (ScoreSettings, {"layer": "fooo"}, "layer: expected a whole number, or a list, or 'middle',"),
        (TrainSettings, {"bta": 1}, "unknown key 'bta'; did you mean 'beta'?"),
    ],
)
def test_so_is_a_bad_value_of_the_command_line(kind, values, said):
    with pytest.raises(ConfigError) as caught:
        build(kind, values)
    assert said in str(caught.value)
    assert [word for word in WORDS_OF_PYDANTIC if word in str(caught.value)] == []
