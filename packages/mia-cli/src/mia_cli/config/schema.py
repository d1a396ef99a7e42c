"""`pipeline.yaml`: the settings of all stages in one file, every value with a default.

Read with `yaml.safe_load`. A relative path is relative to the YAML file. An unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from mia_attention import AnswerSource, ScoreSettings
from mia_augment import AugmentSettings, ConfigError, FormatName, Settings
from mia_augment.storage import problems
from mia_dpo_train import TrainSettings
from mia_select import SelectSettings
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from mia_cli.config.overrides import with_overrides
from mia_cli.config.recipe_files import KEY, RECIPES, check_recipe, laid_under, recipe_settings
from mia_cli.config.renamed_keys import with_present_names
from mia_cli.config.yaml_errors import child, explain, told
from mia_cli.config.yaml_files import read_yaml

EMBEDDED_MODEL = "embedded"
"""Name of the model that ships with this package."""

SettingsT = typing.TypeVar("SettingsT", bound=BaseModel)


class DataSettings(Settings):
    """Your single-image rows."""

    source: Path | None = None
    """Rows: JSON, JSONL, CSV, TSV, parquet or WebDataset tar, packed or not, or a folder of such files; or a data set of the
    Hugging Face hub, `hf://OWNER/NAME` with `@REVISION`, `/CONFIGURATION`, `:SPLIT` behind it (extra `hub`)."""
    image_root: Path | None = None
    """Folder that the rows' pictures are relative to; by default the folder of `source`, or `source` itself if it is one."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most so many rows."""
    workers: int = Field(default=1, ge=1)
    """Processes that compose pictures; the result does not depend on it."""


class ModelSettings(Settings):
    """The model to be aligned."""

    name: str = EMBEDDED_MODEL
    """`embedded`, a folder, or a Hugging Face id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: float32 on a CPU and for the embedded model, bfloat16 elsewhere."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    quantization: Literal["none", "4bit"] = "none"
    """`4bit`: the language model in 4 bits, for `train.tuning: qlora` (needs bitsandbytes)."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class EvaluateSettings(Settings):
    """Questions that training never sees, asked before and after."""

    source: Path | None = None
    """Rows of their own to measure on; without them, `holdout` of your pictures are kept apart."""
    image_root: Path | None = None
    """Folder that these rows' pictures are relative to; by default the folder of `source`, or `source` itself if it is one."""
    holdout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the pictures kept out of training and asked about instead (unless `source` is given); above 0."""
    per_bucket: int = Field(default=100, ge=0)
    """Samples for each format and number of images; 0 turns evaluation off."""
    formats: list[FormatName] | None = None
    """Formats to measure; by default those of `augment` and `single`."""
    batch_size: int = Field(default=8, ge=1)
    """Samples answered at a time."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens."""
    choices: Literal["likelihood", "answer"] = "likelihood"
    """Questions with lettered options (`A. ..`, `(A) ..`) whose true answer names one: `likelihood` takes the option that the
    model holds most likely, `answer` reads which one its own answer names. Other questions are always answered in words."""
    answers: AnswerSource | None = None
    """Ask a server (or take from a file) what the model says before training; options then count by what the answer names."""
    trained_answers: AnswerSource | None = None
    """The same for the trained model, which a server has under a name of its own."""
    delimiter_scale: float | None = Field(default=None, gt=0)
    """Mending without training: the second time, hidden states of the tokens around each picture are multiplied by this in the
    first four layers (arXiv 2602.01984 takes 8), beside what was trained, if anything was. Options then count by what the
    answer names, and no server can answer."""
    alone: bool = False
    """Also measure which picture each answer speaks of, by the untrained model's likelihoods under each picture alone: for
    free-form answers, which equal no ground truth. Always done where rows have no ground truth."""

    @model_validator(mode="after")
    def _answers_itself(self) -> Self:
        if self.delimiter_scale is not None and (self.answers or self.trained_answers):
            raise ValueError(
                "delimiter_scale: expected answers of the loaded model, got a server or file; leave one of them out"
            )
        return self


class LaunchSettings(Settings):
    """How many processes share scoring, attention maps, training and evaluation."""

    processes: int | Literal["auto"] = "auto"
    """On each machine, one for each device: `auto` takes all GPUs, or one process where there is none."""
    nodes: int = Field(default=1, ge=1)
    """Machines. More than one are those of a Slurm job, whose script `mia slurm` writes; all of them see the run directory."""
    port: int | None = Field(default=None, ge=1024, le=65_535)
    """Port of the first machine through which the processes find each other; null: one that is free."""
    config: Path | None = None
    """A file of `accelerate config` (FSDP, DeepSpeed, ..) that says how they are started."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if isinstance(self.processes, int) and self.processes < 1:
            raise ValueError(f"processes: expected auto or at least 1, got {self.processes}")
        return self


class ReportSettings(Settings):
    """The page that shows what happened."""

    title: str = "MIA-DPO run"
    """Heading of the page."""
    pairs: int = Field(default=200, ge=0)
    """Example pairs to show, taken evenly from all formats and numbers of images."""
    attention: int = Field(default=100, ge=0)
    """How many of the examples get the model's attention laid over their pictures (asks the model once for each)."""
    knockouts: bool = True
    """Also show how much less likely each of these answers is without each picture: a pass over prompt and answer for each."""
    alone: bool = True
    """Also show how likely each of these answers is under each picture alone: a pass over picture and answer for each."""
    thumbnail: int = Field(default=160, ge=16, le=1024)
    """Longest side of a picture in the page, in pixels; twice that for composed ones."""


class PipelineConfig(Settings):
    """Everything `mia run` needs."""

    run_dir: Path = Path("run")
    """Where all results go."""
    seed: int = 0
    """Decides every random choice."""
    recipe: str | None = None
    """A way to build pairs and to learn from them (`paper`, `own`, ..): its settings are the defaults of this file, whose own
    keys win. Left out: the paper's, as shown here."""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    augment: AugmentSettings = AugmentSettings()
    score: ScoreSettings = ScoreSettings()
    select: SelectSettings = SelectSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()
    launch: LaunchSettings = LaunchSettings()

    @field_validator(KEY)
    @classmethod
    def _known_recipe(cls, name: str | None) -> str | None:
        if name is not None and name not in RECIPES:
            raise ValueError(f"expected one of {', '.join(RECIPES)}")
        return name

    @model_validator(mode="after")
    def _quantized_together(self) -> Self:
        if (self.train.tuning == "qlora") != (self.model.quantization == "4bit"):
            raise ValueError(
                f"train.tuning is {self.train.tuning} and model.quantization is {self.model.quantization}: qlora trains "
                "adapters on a model in 4bit, so set both or neither"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, value: Any) -> Any:
        """A section whose lines are all commented out reads as None: it has its defaults, or what the recipe says."""
        if not isinstance(value, dict):
            return value
        said = {k: v for k, v in value.items() if v is not None}
        name = said.get(KEY)
        known = isinstance(name, str) and name in RECIPES
        return laid_under(said, recipe_settings(str(name)), cls) if known else said

    def resolved(self, folder: Path) -> Self:
        """The same with every path absolute, taken from `folder`, and the seed handed to the stages that were given none."""
        local = folder / home(Path(self.model.name))
        name = str(real_path(local)) if _is_folder(self.model.name, local) else self.model.name
        placed = _absolute(self, folder)
        return placed.model_copy(
            update={
                "model": self.model.model_copy(update={"name": name}),
                "score": _seeded(placed.score, self.seed),
                "select": _seeded(placed.select, self.seed),
                "train": _seeded(placed.train, self.seed),
            }
        )


def _absolute(settings: SettingsT, folder: Path) -> SettingsT:
    """The settings with every path in them taken from `folder`."""
    changed: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            changed[name] = value if value.parts[:1] == ("hf:",) else real_path(folder / home(value))
        elif isinstance(value, Settings):
            changed[name] = _absolute(value, folder)
    return settings.model_copy(update=changed)


def _seeded(settings: SettingsT, seed: int) -> SettingsT:
    wanted = "seed" in type(settings).model_fields and "seed" not in settings.model_fields_set
    return settings.model_copy(update={"seed": seed}) if wanted else settings


def home(path: Path) -> Path:
    """The path with `~` and `~name` replaced.

    Raises:
        ConfigError: there is nobody of that name.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: no home folder {path.parts[0]!r} here; write the path out") from error


def real_path(path: Path) -> Path:
    """The absolute path, symlinks followed.

    Raises:
        ConfigError: a circle of symlinks.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # the latter before Python 3.13
        raise ConfigError(f"{path}: cannot be followed: {error}") from error


def _is_folder(name: str, local: Path) -> bool:
    return name != EMBEDDED_MODEL and (local.is_dir() or name.startswith((".", "/", "~")))


def load_config(path: Path, *, bare: bool = False, given: Sequence[str] = ()) -> PipelineConfig:
    """Read a `pipeline.yaml`; `bare`: without the recipe that it names; `given`: ``KEY=VALUE`` that go before what it says.

    Raises:
        ConfigError: no such file, no YAML, an unknown key (with the nearest known one) or a bad value (with what was expected).
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `mia init {path}` writes one to start from")
    return parse(PipelineConfig, path, bare=bare, given=given).resolved(path.resolve().parent)


def parse(
    kind: type[SettingsT], path: Path, section: str | None = None, *, bare: bool = False, given: Sequence[str] = ()
) -> SettingsT:
    """Read settings from a YAML file: the whole of it, or its `section` where it has one.

    Args:
        kind: the settings.
        path: the file.
        section: of a whole file.
        bare: without the recipe that it names.
        given: ``KEY=VALUE``, over what the file says.

    Raises:
        ConfigError: as `load_config`.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected settings as YAML")
    value, node = read_yaml(path)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(value).__name__}")
    if given:
        value, node = with_overrides(value, node, given)
    if bare:
        value = {key: inner for key, inner in value.items() if key != KEY}
    prefix: tuple[str, ...] = ()
    if section is not None and value.keys() & {section, "run_dir", KEY}:
        prefix, value = (section,), _section(kind, value, section, path)
    inner = child(node, section) if prefix else (None, node)
    value = with_present_names(value, inner and inner[1], (section,) if section else (), path)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ConfigError(explain(error, kind, prefix, node, path)) from error


def _section(kind: type[BaseModel], values: dict[str, Any], section: str, path: Path) -> Any:
    """One section of a whole file, with what the file's recipe says under it."""
    said, recipe = values.get(section) or {}, values.get(KEY)
    if recipe is None or not isinstance(said, dict):
        return said
    return laid_under(said, recipe_settings(check_recipe(recipe, f"{path}: ")).get(section, {}), kind)


def build(kind: type[SettingsT], values: dict[str, Any], base: dict[str, Any] | None = None) -> SettingsT:
    """Settings from command-line options; None means: not given. `base`: from a file, where null is a value.

    Raises:
        ConfigError: a value is out of range.
    """
    try:
        given = {name: value for name, value in values.items() if value is not None}
        return kind.model_validate({**(base or {}), **given})
    except ValidationError as error:
        raise ConfigError("\n".join(told(problem, kind) for problem in problems(error))) from error
