"""Loading a language model in 4 bits, for adapters on top of it (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

from typing import Any

import torch

from mia_dpo_train.environment import require_bitsandbytes
from mia_dpo_train.models.facts import language_model, linear_names


def four_bit_config(config: Any, dtype: torch.dtype) -> Any:
    """A `BitsAndBytesConfig` for `from_pretrained`: NF4 with quantized constants, in the language model only.

    Vision tower, projector and output head stay as they are: they are small, and what is not quantized can be trained.

    Args:
        config: configuration of the vision-language model that is going to be loaded.
        dtype: type in which the layers compute.

    Raises:
        ConfigError: bitsandbytes is not installed.
        ModelError: no vision-language model.
    """
    require_bitsandbytes("loading a model in 4 bits")
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    prefix, _ = language_model(model)
    kept = [name for name in linear_names(model) if not name.startswith(f"{prefix}.")]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,  # for 4 bits too, despite its name
    )
