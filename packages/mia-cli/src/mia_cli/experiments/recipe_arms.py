"""`mia ablate --recipes`: the pairs that every recipe makes of the same rows, beside the file's own and NLL alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mia_attention import DELIMITER_SCALE
from mia_augment import ConfigError, DataError
from mia_augment.storage import summary
from mia_select.ablation import REFERENCE, VARIANTS, ArmSummary, Pool, Variant, read_pool
from pydantic import ValidationError

from mia_cli.config.recipe_files import KEY, RECIPES, check_recipe, laid_under, recipe_meaning, recipe_settings
from mia_cli.config.schema import PipelineConfig
from mia_cli.layout import ABLATION, Folders
from mia_cli.loading.load import SharedModel
from mia_cli.pipeline import check_judged, samples_stage, scored_stage
from mia_cli.runner import Runner
from mia_cli.terminal.display import Display

ALL = "all"
NLL_ALONE = "nll_only"
UNTRAINED = ArmSummary(
    variant="delimiters",
    title=f"no training: delimiters scaled by {DELIMITER_SCALE:g}",
    available=0,
    pairs=0,
    train={},
    compared_with=REFERENCE,
    same_as=None,
    left_out=None,
)
"""Beside the recipes, what needs no pairs at all (`evaluate.delimiter_scale`)."""


@dataclass(frozen=True)
class RecipeFolders(Folders):
    """The samples of one recipe, and its scores."""

    recipe: str

    @property
    def samples(self) -> Path:
        return self.run_dir / ABLATION / "recipes" / self.recipe / "augment"

    @property
    def scored(self) -> Path:
        return self.run_dir / ABLATION / "recipes" / self.recipe / "score"


def recipe_configs(config: PipelineConfig, names: Sequence[str]) -> dict[str, PipelineConfig]:
    """Recipe -> the file's settings with the recipe's own laid over them: what a recipe sets is what is compared.

    Args:
        config: a file's settings, without the recipe that it names.
        names: recipes, or ``all``.

    Raises:
        ConfigError: an unknown recipe, or one that the file's other settings contradict.
    """
    chosen = list(RECIPES) if ALL in names else [check_recipe(name) for name in names]
    found = {}
    for name in dict.fromkeys(chosen):
        values = laid_under(recipe_settings(name), config.model_dump(), PipelineConfig)
        try:
            found[name] = PipelineConfig.model_validate({**values, KEY: name})
            check_judged(found[name])
        except ValidationError as error:
            raise ConfigError(f"recipe {name}: does not go with the other settings of the file: {summary(error)}") from error
        except ConfigError as error:
            raise ConfigError(f"recipe {name}: {error}") from error
    return found


def recipe_samples(
    config: PipelineConfig, configs: Mapping[str, PipelineConfig], runner: Runner, display: Display, *, lenient: bool
) -> dict[str, Path]:
    """Recipe -> the folder of its samples, made before any model is asked; recipes that compose alike share one.

    Args:
        lenient: leave out, with the reason, a recipe that the data cannot serve.

    Raises:
        DataError: such a recipe, unless `lenient`.
    """
    folders = {config.augment.model_dump_json(): Folders(config.run_dir).samples}
    found = {}
    for name, changed in configs.items():
        key = changed.augment.model_dump_json()
        folder = folders.get(key, RecipeFolders(config.run_dir, name).samples)
        if key not in folders:
            try:
                runner.run(replace(samples_stage(changed, folder), name=f"{name}: samples"))
            except DataError as error:
                if not lenient:
                    raise DataError(f"recipe {name}: {error}") from error
                display.say("ablate", f"the recipe {name!r} is left out: {error}", "yellow")
                continue
        folders[key] = found[name] = folder
    return found


def recipe_pools(
    config: PipelineConfig,
    configs: Mapping[str, PipelineConfig],
    samples: Mapping[str, Path],
    shared: SharedModel,
    runner: Runner,
) -> tuple[dict[str, Pool], dict[str, Path]]:
    """Variant -> its pairs, and variant -> the folder of their scored samples; the file's own stands first, NLL alone last."""
    own = Folders(config.run_dir)
    scores = {(own.samples, config.score.model_dump_json()): own.scored}
    sources = {REFERENCE: own.scored}
    variants = [Variant(REFERENCE, "the file as it is, without a recipe")]
    for name, folder in samples.items():
        changed, key = configs[name], (folder, configs[name].score.model_dump_json())
        if key not in scores:
            places = _Placed(config.run_dir, name, folder)
            runner.run(replace(scored_stage(changed, places, shared), name=f"{name}: score"))
            scores[key] = places.scored
        sources[name] = scores[key]
        variants.append(recipe_variant(name, config, changed))
    variants.append(next(variant for variant in VARIANTS if variant.name == NLL_ALONE))
    sources[NLL_ALONE] = own.scored
    pools = {variant.name: read_pool(sources[variant.name], config.select, variant) for variant in variants}
    return pools, sources


@dataclass(frozen=True)
class _Placed(RecipeFolders):
    """Scores of a recipe whose samples may be another's."""

    taken: Path

    @property
    def samples(self) -> Path:
        return self.taken


def recipe_variant(name: str, config: PipelineConfig, changed: PipelineConfig) -> Variant:
    """A recipe as an arm: what differs from the file in selection and training."""
    before, after = config.select.model_dump(), changed.select.model_dump()
    trained, wanted = config.train.model_dump(mode="json"), changed.train.model_dump(mode="json")
    return Variant(
        name,
        f"recipe {name}: {recipe_meaning(name).split('. ')[0].rstrip('.')}",
        select={key: value for key, value in after.items() if value != before[key]},
        train={key: value for key, value in wanted.items() if value != trained[key]},
    )
