"""An adapter merged into its model: a plain Hugging Face folder for evaluation harnesses and servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mia_augment import IMAGE, SINGLE, DataError, ModelError, PreferencePair, Region, Scores
from PIL import Image

from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.routes import plain_logps
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trained_folder import ADAPTER_CONFIG, with_adapter
from mia_dpo_train.training.checkpoints import whole_folder

MERGE_TOLERANCE = 0.05
"""Largest change of a token's log-prob by merging; rounding in 16 bits stays below, a lost adapter does not."""


@dataclass(frozen=True)
class MergeReport:
    """Log-probs (nats, summed over the answer) of the same answer to the same prompt."""

    folder: Path
    base_logp: float
    """Without the adapter."""
    adapter_logp: float
    """With the adapter beside the model."""
    merged_logp: float
    """Of the merged folder, read back with plain transformers."""
    tokens: int

    @property
    def difference(self) -> float:
        return abs(self.merged_logp - self.adapter_logp)

    @property
    def verdict(self) -> str:
        """Whether the merged model does what the adapter did, in a sentence."""
        moved = abs(self.adapter_logp - self.base_logp)
        close = f"the same answer's log-prob differs by {self.difference:.4f} over {self.tokens} tokens"
        if moved <= 2 * self.difference:
            return f"no difference found, but the adapter hardly changes the answer tried ({moved:.4f}), so that says little"
        return f"sound: the merged model, read back, answers as the adapter did ({close}; training changed it by {moved:.4f})"


def export_merged(
    model_folder_or_id: str | Path,
    adapter: Path,
    out: Path,
    *,
    dtype: str = "auto",
    pair: PreferencePair | None = None,
    open_image: Callable[[str], Any] | None = None,
) -> MergeReport:
    """Merge an adapter into its model; plain AutoModelForImageTextToText and AutoProcessor load what is written.

    Args:
        pair: its chosen answer's log-prob is compared before and after; default: a made-up question about a plain picture.
        open_image: opens the pair's pictures.

    Raises:
        ModelError: the folder is no vision-language model, or what was written does not compute what the adapter did.
        DataError: no adapter in `adapter`.
    """
    name = str(model_folder_or_id)
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise DataError(f"{adapter}: no {ADAPTER_CONFIG}; expected the adapter/ folder that training wrote")
    pair, open_image = pair or _plain_pair(), open_image or _plain_picture
    model, processor = _loaded(name, dtype)
    base, tokens = _chosen_logp(model, processor, pair, open_image)
    adapted = with_adapter(model, adapter, name)
    beside, _ = _chosen_logp(adapted, processor, pair, open_image)
    merged = adapted.merge_and_unload(safe_merge=True)

    def write(folder: Path) -> None:
        merged.save_pretrained(str(folder))
        processor.save_pretrained(str(folder))

    whole_folder(out, write)
    after, _ = _chosen_logp(*_loaded(str(out), dtype), pair, open_image)
    report = MergeReport(out, base, beside, after, tokens)
    if report.difference > MERGE_TOLERANCE * tokens:
        raise ModelError(
            f"{out}: the merged model gives log-prob {after:.4f}, the adapter gave {beside:.4f} (without: {base:.4f}); "
            "merge in a wider type: dtype='float32'"
        )
    return report


def _loaded(name: str, dtype: str) -> tuple[Any, Any]:
    """Model and processor, by plain transformers."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    try:
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype).eval()
        return model, AutoProcessor.from_pretrained(name)
    except MemoryError:
        raise
    except Exception as error:  # transformers raises anything at damaged files
        said = f"{type(error).__name__}: {error}"
        raise ModelError(f"{name}: not a vision-language model with a processor: {said}") from error


@torch.no_grad()
def _chosen_logp(model: Any, processor: Any, pair: PreferencePair, open_image: Callable[[str], Any]) -> tuple[float, int]:
    encoded = PairEncoder(processor, open_image)(pair)
    logps = plain_logps(model, model_facts(model), collate([encoded]))
    return float(logps[0, 0]), len(encoded.chosen)


def _plain_pair() -> PreferencePair:
    return PreferencePair(
        id="probe",
        format=SINGLE,
        images=["plain"],
        prompt=f"{IMAGE}\nWhat color is the picture?",
        chosen="The picture is gray.",
        rejected="The picture is red.",
        scores=Scores(),
        target=0,
        regions=[Region(image=0, label="the picture")],
    )


def _plain_picture(name: str) -> Image.Image:
    return Image.new("RGB", (224, 224), (128, 128, 128))
