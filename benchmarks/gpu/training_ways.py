"""The ways in which a step of DPO is taken: ours, the textbook's, TRL's and ms-swift's."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from clock import measure
from mia_dpo_train.data.encode import PairBatch, collate
from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.losses import training_loss
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.models.trainable import prepare_for_training, trainable
from mia_dpo_train.settings import LoraSettings, TrainSettings
from shapes import ANSWER_TOKENS, IMAGE, QUESTION_TOKENS, Shape, build, pair
from torch import Tensor

DIRECT = {"packed": "packed", "kv": "kv", "plain": "plain", "concatenated": "plain"}
"""Ways by the package's own parts: their route."""
TRAINING_WAYS = [*DIRECT, "trl", "trl_liger", "ms_swift"]


def train_way(shape: Shape, way: str, images: int, *, checkpointing: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and of the reference of one batch, peak memory; or why it was left out."""
    for package, ways in {"trl": ("trl", "trl_liger"), "liger_kernel": ("trl_liger",), "swift": ("ms_swift",)}.items():
        if way in ways and importlib.util.find_spec(package) is None:
            return {"left_out": f"{package} is not installed"}
    if way == "ms_swift":
        return run_swift(images, checkpointing=checkpointing, arguments=arguments)
    if way == "kv" and checkpointing:
        return {"left_out": "gradient checkpointing drops the cache"}
    model = build(shape, tiny=arguments.tiny, device=arguments.device)
    size = sum(parameter.numel() for parameter in model.get_decoder().parameters())
    settings = TrainSettings(
        lora=LoraSettings(r=arguments.rank, alpha=2 * arguments.rank), gradient_checkpointing=checkpointing, nll="token_mean",
        offload_activations=arguments.offload,
    )  # fmt: skip
    model = prepare_for_training(model, settings, "random")
    if way in DIRECT:
        found = run_direct(shape, model, way, images, settings, arguments)
    else:
        found = run_trl(shape, model, images, checkpointing=checkpointing, liger=way == "trl_liger", arguments=arguments)
    seconds = found["step_s"] + found["reference_s"] / arguments.epochs
    floor = 2 * size * arguments.batch * passes(images, way, checkpointing, arguments.epochs) / arguments.flops
    return {**found, "per_second": arguments.batch / seconds, "of_floor": seconds / floor}


def run_direct(
    shape: Shape, model: Any, way: str, images: int, settings: TrainSettings, arguments: argparse.Namespace
) -> dict[str, Any]:
    """By the package's own parts; `concatenated` runs the reference in every step, as TRL does."""
    from mia_dpo_train.logps.offloading import offloading

    device, pairs = torch.device(arguments.device), arguments.batch
    logps = PairLogps(model, model_facts(model), DIRECT[way]).train()  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-5)
    made = [[pair(shape, images, step * pairs + number) for number in range(pairs)] for step in range(arguments.steps)]
    batches = [collate(each).to(device) for each in made]

    def reference(batch: PairBatch) -> Tensor:
        logps.eval()
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16), model.disable_adapter():
            found: Tensor = logps(batch)
        logps.train()
        return found

    stored = [reference(batch) for batch in batches]

    def step(batch: PairBatch, known: Tensor) -> None:
        known = reference(batch) if way == "concatenated" else known
        offloaded = offloading(model, device, wanted=settings.offload_activations)
        with offloaded, torch.autocast(device.type, dtype=torch.bfloat16):
            policy = logps(batch)
        tokens = {"pairs": pairs, "chosen_tokens": pairs * ANSWER_TOKENS}
        training_loss(policy, known, batch.lengths, settings=settings, **tokens).loss.backward()
        update(model, optimizer)

    step(batches[0], stored[0])  # kernels are compiled and chosen
    seconds, peak = measure(lambda: [step(*each) for each in zip(batches, stored, strict=True)], arguments.device)
    spent = 0.0 if way == "concatenated" else measure(lambda: [reference(batch) for batch in batches], arguments.device)[0]
    return {"step_s": seconds / arguments.steps, "reference_s": spent / arguments.steps, "peak_gib": peak}


def update(model: Any, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(trainable(model).values(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def run_trl(
    shape: Shape, model: Any, images: int, *, checkpointing: bool, liger: bool, arguments: argparse.Namespace
) -> dict[str, Any]:
    """TRL's DPOTrainer on batches as its own collator lays them out."""
    import trl
    from datasets import Dataset

    cpu = arguments.device == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        config = trl.DPOConfig(
            output_dir=folder, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.1], beta=0.1, max_length=None, report_to=[],
            bf16=not cpu, use_cpu=cpu, gradient_checkpointing=checkpointing, use_liger_kernel=liger,
            gradient_checkpointing_kwargs={"use_reentrant": False}, per_device_train_batch_size=1, learning_rate=1e-5,
        )  # fmt: skip
        placeholder = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
        trainer = trl.DPOTrainer(model=model, args=config, train_dataset=placeholder, processing_class=_tokenizer())
    optimizer = torch.optim.AdamW(trainable(trainer.model).values(), lr=1e-5)
    made = [trl_batch(shape, images, step * arguments.batch, arguments) for step in range(arguments.steps)]

    def step(inputs: dict[str, Tensor]) -> None:
        with torch.autocast(torch.device(arguments.device).type, dtype=torch.bfloat16):  # as its `train` would
            loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        update(trainer.model, optimizer)

    trainer.model.train()
    step(made[0])
    seconds, peak = measure(lambda: [step(inputs) for inputs in made], arguments.device)
    return {"step_s": seconds / arguments.steps, "reference_s": 0.0, "peak_gib": peak}


def trl_batch(shape: Shape, images: int, first: int, arguments: argparse.Namespace) -> dict[str, Tensor]:
    """All chosen answers behind their prompts, then all rejected ones, padded on the right; pictures twice."""
    pairs = [pair(shape, images, first + number) for number in range(arguments.batch)]
    rows = [torch.cat([each.prompt, getattr(each, side)]) for side in ("chosen", "rejected") for each in pairs]
    marks = [torch.arange(len(row)) >= len(row) - ANSWER_TOKENS for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    batch = {"input_ids": pad(rows, True), "attention_mask": pad([torch.ones_like(row) for row in rows], True)}
    batch["completion_mask"] = pad([mark.long() for mark in marks], True)
    if shape.types:
        batch[shape.types] = (batch["input_ids"] == IMAGE).long()
    batch |= {name: torch.cat([each.vision[name] for each in pairs] * 2) for name in pairs[0].vision}
    return {name: value.to(arguments.device) for name, value in batch.items()}


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    inner = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def run_swift(images: int, *, checkpointing: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """ms-swift's own command with padding-free batches, on a checkpoint with its processor (it builds its inputs itself)."""
    import numpy as np
    from PIL import Image

    if arguments.checkpoint is None:
        return {"left_out": "ms-swift builds its inputs with a real processor: give a model's folder as --checkpoint"}
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        for number in range(arguments.steps * arguments.batch * 2):
            files = [str(folder / f"{number}-{image}.png") for image in range(images)]
            for place, file in enumerate(files):
                noise = np.random.default_rng((number, place)).integers(0, 255, (336, 336, 3), dtype=np.uint8)
                Image.fromarray(noise).save(file)
            asked = {"role": "user", "content": "<image>" * images + "What is on the left? " * (QUESTION_TOKENS // 6)}
            chosen, rejected = ("It is a red cat. " * (ANSWER_TOKENS // 6), "It is a dog, I say. " * (ANSWER_TOKENS // 7))
            said = {"role": "assistant", "content": chosen}
            rows.append({"messages": [asked, said], "rejected_response": rejected, "images": files})
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {
            "rlhf_type": "dpo", "model": str(arguments.checkpoint), "dataset": str(folder / "rows.jsonl"), "tuner_type": "lora",
            "lora_rank": arguments.rank, "lora_alpha": 2 * arguments.rank, "torch_dtype": "bfloat16", "logging_steps": 1,
            "padding_free": "true", "attn_impl": "flash_attn", "per_device_train_batch_size": arguments.batch,
            "gradient_accumulation_steps": 1, "num_train_epochs": 1, "output_dir": str(folder / "out"),
            "gradient_checkpointing": str(checkpointing).lower(), "split_dataset_ratio": 0,
        }  # fmt: skip
        command = ["swift", "rlhf", *(str(part) for key, value in options.items() for part in (f"--{key}", value))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        logs = sorted(folder.glob("out/**/logging.jsonl"))
        if done.returncode or not logs:
            return {"left_out": f"swift ended with {done.returncode}: {done.stderr.strip()[-160:]}"}
        last = [json.loads(line) for line in logs[-1].read_text().splitlines() if "memory(GiB)" in line][-1]
    rate = float(last["train_speed(iter/s)"]) if "train_speed(iter/s)" in last else 1 / float(last["train_speed(s/it)"])
    return {"step_s": 1 / rate, "peak_gib": last["memory(GiB)"], "per_second": rate * arguments.batch}


def passes(images: int, way: str, checkpointing: bool, epochs: int) -> float:
    """Tokens through the language model for one pair, in units of one forward pass.

    With frozen base weights a backward pass costs one forward pass (gradients of activations only), checkpointing one more.
    """
    prompt = 1 + images * 580 + QUESTION_TOKENS + 40
    train = 3 if checkpointing else 2
    shared, separate = prompt + 2 * ANSWER_TOKENS, 2 * (prompt + ANSWER_TOKENS)
    if way in ("trl", "trl_liger", "concatenated"):
        return separate * (train + 1)
    return (separate if way == "plain" else shared) * (train + 1 / epochs)
