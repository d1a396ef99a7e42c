"""A LLaVA-1.5 of the original code (liuhaotian/llava-v1.5-7b, or one's own) as a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mia_augment import ModelError
from mia_augment.storage import read_json
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mia_dpo_train.original.llava_names import EMBEDDINGS, llava_config, read_original, renamed
from mia_dpo_train.original.llava_prompt import LLAVA_TEMPLATE
from mia_dpo_train.original.sentencepiece_files import llama_tokenizer
from mia_dpo_train.training.checkpoints import whole_folder

_PICTURE = "<image>"


@dataclass(frozen=True)
class Converted:
    """What was written."""

    folder: Path
    weights: int
    """Number of tensors."""
    parameters: int
    image_tokens: int
    """Visual tokens of a picture."""


def convert_llava(checkpoint: Path, out: Path, vision_tower: Path | None = None) -> Converted:
    """Write a checkpoint of LLaVA-1.5's original code in transformers' layout, with tokenizer, processor and its own prompt.

    Args:
        checkpoint: folder with config.json, tokenizer.model and the weights (pytorch_model*.bin or *.safetensors).
        out: the new folder.
        vision_tower: folder of the CLIP model that the checkpoint names; None: the checkpoint holds its weights too, or names
            a folder.

    Raises:
        ModelError: it is no such checkpoint, one that transformers' LLaVA does not compute alike, or weights are missing.
    """
    config = read_original(checkpoint, vision_tower)
    tower = _tower(config, checkpoint, vision_tower)
    tokenizer = llama_tokenizer(checkpoint)
    tokenizer.add_tokens([_added(_PICTURE)], special_tokens=True)
    image_token = tokenizer.convert_tokens_to_ids(_PICTURE)
    rows = max(int(config["vocab_size"]), image_token + 1)
    vision = _vision_config(tower)
    made = llava_config(config, vision, rows, image_token)
    processor = _processor(tokenizer, made, tower, config)
    count: dict[str, int] = {}

    def write(folder: Path) -> None:
        made.save_pretrained(str(folder))
        processor.save_pretrained(str(folder))
        _generation(config).save_pretrained(str(folder))
        count.update(_write_weights(folder, _weights(checkpoint, tower, rows), made))

    whole_folder(out, write)
    return Converted(out, count["weights"], count["parameters"], made.image_seq_length)


def _tower(config: Mapping[str, Any], checkpoint: Path, given: Path | None) -> Path:
    """The folder of the vision tower: the one that was given, or the one that the configuration names."""
    named = str(config.get("mm_vision_tower") or config.get("vision_tower"))
    for folder in (given, Path(named), checkpoint / named):
        if folder is not None and (folder / "config.json").is_file():
            return folder
    raise ModelError(
        f"{checkpoint}: its vision tower is {named}, which is no folder here; fetch it and say where it lies: "
        f"hf download {named} --local-dir CLIP; mia convert {checkpoint} --vision-tower CLIP --out DIR"
    )


def _vision_config(tower: Path) -> Any:
    from transformers import CLIPVisionConfig

    config = read_json(tower / "config.json", "download the vision tower again")
    config = config if isinstance(config, dict) else {}
    own = config.get("vision_config", config)
    if not isinstance(own, dict) or "clip" not in str(config.get("model_type")):
        raise ModelError(f"{tower}: expected a CLIP model as vision tower, got model_type {config.get('model_type')!r}")
    return CLIPVisionConfig(**{name: value for name, value in own.items() if name in CLIPVisionConfig().to_dict()})


def _processor(tokenizer: Any, config: Any, tower: Path, original: Mapping[str, Any]) -> Any:
    """Pictures as the original code makes them: padded to a square in the mean colour, or cut to one in the middle."""
    from transformers import LlavaImageProcessor, LlavaProcessor

    file = tower / "preprocessor_config.json"
    said = read_json(file, "download the vision tower again") if file.is_file() else {}
    kept = ("image_mean", "image_std", "resample", "do_normalize", "do_rescale", "rescale_factor", "do_convert_rgb")
    side = config.vision_config.image_size
    images = LlavaImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_pad=original.get("image_aspect_ratio") == "pad",
        **{name: said[name] for name in kept if name in said},
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        image_token=_PICTURE,
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )


def _generation(config: Mapping[str, Any]) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=config.get("bos_token_id", 1), eos_token_id=config.get("eos_token_id", 2), pad_token_id=0
    )


def _weights(checkpoint: Path, tower: Path, rows: int) -> Iterator[dict[str, Tensor]]:
    """The weights file by file, under their new names."""
    seen = False
    for file in _weight_files(checkpoint):
        part = {ours: tensor for name, tensor in _tensors(file) if (ours := renamed(name))}
        seen = seen or any(name.startswith("vision_tower.") for name in part)
        yield {name: _with_rows(tensor, rows) if name in EMBEDDINGS else tensor for name, tensor in part.items()}
    if not seen:
        for file in _weight_files(tower):
            yield {
                f"vision_tower.{name}": tensor
                for name, tensor in _tensors(file)
                if name.startswith("vision_model.") and not name.endswith("position_ids")
            }


def _with_rows(weight: Tensor, rows: int) -> Tensor:
    """A weight with as many rows; those that are added are the mean of the others, (rows, hidden)."""
    more = rows - len(weight)
    if more <= 0:
        return weight
    mean = weight.float().mean(0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(more, -1)])


def _weight_files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not found:
        raise ModelError(f"{folder}: expected weights (*.safetensors or pytorch_model*.bin), found none")
    return found


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as content:
                for name in content.keys():  # noqa: SIM118 no mapping
                    yield name, content.get_tensor(name)
        else:
            yield from torch.load(file, map_location="cpu", weights_only=True, mmap=True).items()
    except Exception as error:  # whatever the readers raise at a damaged file
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{file} is damaged ({type(error).__name__}: {error}): download it again") from error


def _write_weights(folder: Path, parts: Iterator[dict[str, Tensor]], config: Any) -> dict[str, int]:
    """Write each part to a file of its own, with their index, and count them.

    Raises:
        ModelError: a weight of the model is missing, or has another shape.
    """
    missing, where, parameters, size = _shapes(config), {}, 0, 0
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}.safetensors"
        for key, tensor in part.items():
            shape = missing.pop(key, None)
            if shape is None or shape != tuple(tensor.shape):
                found = tuple(tensor.shape)
                raise ModelError(f"weight {key}: expected shape {shape}, got {found}; config.json is another model's")
            where[key], parameters, size = name, parameters + tensor.numel(), size + tensor.nbytes
        save_file({key: tensor.contiguous() for key, tensor in part.items()}, str(folder / name), {"format": "pt"})
    if missing:
        first = next(iter(missing))
        raise ModelError(f"{len(missing)} weights are missing, among them {first}: a file of the checkpoint is not there")
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return {"weights": len(where), "parameters": parameters}


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by the name under which it is stored."""
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    return {_stored(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _stored(name: str) -> str:
    """The name in files, which versions of transformers share, of a weight that has this one in the model."""
    name = name.removeprefix("model.")
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def _added(text: str) -> Any:
    from tokenizers import AddedToken

    return AddedToken(text, special=True, normalized=False)
