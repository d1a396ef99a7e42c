"""Training on preference pairs on one GPU: pairs/s and peak memory, beside TRL, with the floor that FLOPs set.

Random weights in LLaVA-1.5-7B's shape, bf16, LoRA r=128 on the language model, batches of one pair, 1 / 3 / 5 images of 576
tokens, answers of 30 tokens, with and without gradient checkpointing. Needs torch, transformers, accelerate, peft, and trl for
that row; the packages of this repository are found beside it.

    python benchmarks/gpu/bench_train_gpu.py [--images 1 3 5] [--steps 6] [--variants packed flex trl] [--json OUT]
    python benchmarks/gpu/bench_train_gpu.py --tiny            a dry run on any machine

Variants: packed (dense mask, SDPA), flex (packed with FlexAttention's block mask), kv, plain: reference log-probs stored, their
pass shared out over --epochs epochs. concatenated: what TRL computes (both answers behind their own prompt, reference in every
step, only response positions scored), without its trainer around it. trl: TRL's DPOTrainer itself, where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "packages" / name / "src") for name in ("mia-augment", "mia-dpo-train")]

import torch  # noqa: E402
import transformers as hf  # noqa: E402
from mia_dpo_train.data.encode import EncodedPair, PairBatch, collate  # noqa: E402
from mia_dpo_train.logps import routes  # noqa: E402
from mia_dpo_train.logps.packing import PAD, PROMPT, segments  # noqa: E402
from mia_dpo_train.logps.routes import PairLogps  # noqa: E402
from mia_dpo_train.losses import training_loss  # noqa: E402
from mia_dpo_train.models.facts import ModelFacts, model_facts  # noqa: E402
from mia_dpo_train.models.trainable import prepare_for_training, trainable  # noqa: E402
from mia_dpo_train.settings import LoraSettings, TrainSettings  # noqa: E402

VARIANTS = ["packed", "flex", "kv", "plain", "concatenated", "trl"]
IMAGE_TOKEN = 32000
QUESTION_TOKENS, ANSWER_TOKENS = 60, 30


def build(tiny: bool, device: str) -> Any:
    """LLaVA-1.5-7B's shape with random weights."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    if tiny:
        vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, image_size=336, patch_size=14),
        text_config=hf.LlamaConfig(**text, vocab_size=32064, max_position_embeddings=4096),
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-2,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = hf.LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    return model


def pair(images: int, number: int) -> EncodedPair:
    generator = torch.Generator().manual_seed(number)

    def words(count: int) -> list[int]:
        return torch.randint(10, 30000, (count,), generator=generator).tolist()

    prompt = [1]
    for _ in range(images):
        prompt += [*words(4), *[IMAGE_TOKEN] * 576]
    prompt += words(QUESTION_TOKENS)
    pixels = torch.randn(images, 3, 336, 336, generator=generator)
    chosen, rejected = (torch.tensor([*words(ANSWER_TOKENS - 1), 2]) for _ in range(2))
    return EncodedPair(str(number), torch.tensor(prompt), None, chosen, rejected, {"pixel_values": pixels})


@contextlib.contextmanager
def flex_attention(model: Any) -> Iterator[None]:
    """The packed route with FlexAttention's block mask in place of the dense one."""
    from torch.nn.attention.flex_attention import create_block_mask

    make_block_mask = torch.compile(create_block_mask)

    def block_mask(facts: ModelFacts, batch: PairBatch, dtype: torch.dtype) -> Any:
        parts = segments(batch)

        def visible(row: Any, head: Any, query: Any, key: Any) -> Any:
            same = (parts[row, key] == PROMPT) | (parts[row, key] == parts[row, query])
            return ((query >= key) & same & (parts[row, key] != PAD)) | (query == key)

        return make_block_mask(visible, parts.shape[0], None, parts.shape[1], parts.shape[1], device=parts.device)

    decoder = model.get_base_model().model.language_model
    original = routes.packed_masks
    decoder.set_attn_implementation("flex_attention")
    model.get_base_model().config.get_text_config()._attn_implementation_internal = "flex_attention"
    routes.packed_masks = block_mask  # type: ignore[assignment]
    try:
        yield
    finally:
        routes.packed_masks = original
        decoder.set_attn_implementation("sdpa")
        model.get_base_model().config.get_text_config()._attn_implementation_internal = "sdpa"


class Clock:
    """Seconds and peak memory of a block, the device's queue drained at both ends."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def measure(self, work: Callable[[], None]) -> tuple[float, float]:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        work()
        if self.cuda:
            torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.cuda else 0.0
        return time.perf_counter() - started, peak


def run_direct(model: Any, variant: str, images: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of a step and of the reference of one pair, and peak memory, by the package's own parts."""
    settings = TrainSettings(nll="token_mean")
    route = {"flex": "packed", "concatenated": "plain"}.get(variant, variant)
    logps = PairLogps(model, model_facts(model), route).train()  # type: ignore[arg-type]
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    batches = [collate([pair(images, number)]).to(torch.device(arguments.device)) for number in range(arguments.steps)]

    def autocast() -> Any:
        return torch.autocast(torch.device(arguments.device).type, dtype=torch.bfloat16)

    def reference(batch: PairBatch) -> torch.Tensor:
        logps.eval()
        with torch.no_grad(), autocast(), model.disable_adapter():
            found = logps(batch)
        logps.train()
        return found

    stored = [reference(batch) for batch in batches[:1]] * len(batches)

    def step(batch: PairBatch, known: torch.Tensor) -> None:
        if variant == "concatenated":
            known = reference(batch)
        with autocast():
            policy = logps(batch)
        step_tokens = {"pairs": 1, "chosen_tokens": ANSWER_TOKENS}
        training_loss(policy, known, batch.lengths, settings=settings, **step_tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def steps() -> None:
        for batch, known in zip(batches, stored, strict=True):
            step(batch, known)

    def references() -> None:
        for batch in batches:
            reference(batch)

    clock = Clock(arguments.device)
    with flex_attention(model) if variant == "flex" else contextlib.nullcontext():
        step(batches[0], stored[0])
        step(batches[0], stored[0])
        seconds, peak = clock.measure(steps)
        reference_seconds = 0.0 if variant == "concatenated" else clock.measure(references)[0]
    return {"step_s": seconds / arguments.steps, "reference_s": reference_seconds / arguments.steps, "peak_gib": peak}


def run_trl(model: Any, images: int, checkpointing: bool, arguments: argparse.Namespace) -> dict[str, float]:
    """TRL's DPOTrainer on batches as its own collator lays them out."""
    import trl
    from datasets import Dataset

    def batch(number: int) -> dict[str, torch.Tensor]:
        made = pair(images, number)
        tokens = [torch.cat([made.prompt, answer]) for answer in (made.chosen, made.rejected)]
        mask = torch.tensor([[0] * len(made.prompt) + [1] * ANSWER_TOKENS] * 2)
        pixels = made.vision["pixel_values"].repeat(2, 1, 1, 1)
        ids = torch.stack(tokens)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, "completion_mask": mask}

    tokenizer = _tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        config = trl.DPOConfig(
            output_dir=folder, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.1], beta=0.1, max_length=None, report_to=[],
            bf16=arguments.device != "cpu", use_cpu=arguments.device == "cpu", gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False}, per_device_train_batch_size=1, learning_rate=1e-5,
        )  # fmt: skip
        placeholder = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
        trainer = trl.DPOTrainer(model=model, args=config, train_dataset=placeholder, processing_class=tokenizer)
    parameters = list(trainable(trainer.model).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    batches = [{key: value.to(arguments.device) for key, value in batch(n).items()} for n in range(arguments.steps)]

    def step(inputs: dict[str, torch.Tensor]) -> None:
        with torch.autocast(torch.device(arguments.device).type, dtype=torch.bfloat16):  # as its `train` would
            loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def steps() -> None:
        for inputs in batches:
            step(inputs)

    trainer.model.train()
    step(batches[0])
    step(batches[0])
    seconds, peak = Clock(arguments.device).measure(steps)
    return {"step_s": seconds / arguments.steps, "reference_s": 0.0, "peak_gib": peak}


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    inner = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def passes(images: int, variant: str, checkpointing: bool, epochs: int) -> float:
    """Tokens through the language model for one pair, in units of one forward pass.

    With frozen base weights a backward pass costs one forward pass (gradients of activations only), checkpointing one more.
    """
    prompt = 1 + images * 580 + QUESTION_TOKENS
    train = 3 if checkpointing else 2
    shared, separate = prompt + 2 * ANSWER_TOKENS, 2 * (prompt + ANSWER_TOKENS)
    if variant in ("trl", "concatenated"):
        return separate * (train + 1)
    return (separate if variant == "plain" else shared) * (train + 1 / epochs)


def matmul_flops(device: str) -> float:
    """FLOP/s of a large bf16 matrix product on this device."""
    size = 8192 if device.startswith("cuda") else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    clock = Clock(device)
    clock.measure(lambda: [a @ b for _ in range(3)] and None)
    seconds, _ = clock.measure(lambda: [a @ b for _ in range(10)] and None)
    return 10 * 2 * size**3 / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--checkpointing", nargs="+", choices=["off", "on"], default=["off", "on"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    rate = matmul_flops(arguments.device)
    name = torch.cuda.get_device_name() if arguments.device != "cpu" else "CPU"
    print(f"{name}, torch {torch.__version__}, transformers {hf.__version__}; bf16 matrix product {rate / 1e12:.0f} TFLOP/s")
    for switch in arguments.checkpointing:
        checkpointing = switch == "on"
        model = build(arguments.tiny, arguments.device)
        size = sum(parameter.numel() for parameter in model.model.language_model.parameters())
        lora = LoraSettings(r=arguments.rank, alpha=2 * arguments.rank)
        model = prepare_for_training(model, TrainSettings(lora=lora, gradient_checkpointing=checkpointing), "random")
        for images in arguments.images:
            for variant in arguments.variants:
                row = {"images": images, "checkpointing": switch, "variant": variant}
                row |= attempt(model, variant, images, checkpointing, arguments)
                if "step_s" in row:
                    whole = row["step_s"] + row["reference_s"] / arguments.epochs
                    floor = 2 * size * passes(images, variant, checkpointing, arguments.epochs) / rate
                    row |= {"pairs_per_s": 1 / whole, "floor_s": floor, "of_floor": whole / floor}
                rows.append(row)
                print({key: round(item, 4) if isinstance(item, float) else item for key, item in row.items()}, flush=True)
        del model
        gc.collect()
        if arguments.device != "cpu":
            torch.cuda.empty_cache()
    report(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": name, "tflops": rate / 1e12, "rows": rows}, indent=1) + "\n")


def attempt(model: Any, variant: str, images: int, checkpointing: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one variant, or say why it could not be."""
    if variant == "trl" and importlib.util.find_spec("trl") is None:
        return {"left_out": "trl is not installed"}
    if variant == "kv" and checkpointing:
        return {"left_out": "gradient checkpointing drops the cache"}
    try:
        if variant == "trl":
            return run_trl(model, images, checkpointing, arguments)
        return run_direct(model, variant, images, arguments)
    except Exception as error:  # one variant that this machine can't run must not cost the others
        return {"left_out": f"{type(error).__name__}: {str(error)[:200]}"}
    finally:
        model.zero_grad()
        gc.collect()
        if arguments.device != "cpu":
            torch.cuda.empty_cache()


def report(rows: list[dict[str, Any]]) -> None:
    print(
        "\n| images | checkpointing | variant | pairs/s | peak GiB | x of FLOP floor | pairs/s of peer's | memory of peer's |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        if "step_s" not in row:
            print(f"| {row['images']} | {row['checkpointing']} | {row['variant']} | {row['left_out']} | | | | |")
            continue
        same = [r for r in rows if (r["images"], r["checkpointing"]) == (row["images"], row["checkpointing"]) and "step_s" in r]
        peer = next((r for name in ("trl", "concatenated") for r in same if r["variant"] == name), row)
        memory = row["peak_gib"] / peer["peak_gib"] if peer["peak_gib"] else float("nan")
        print(
            f"| {row['images']} | {row['checkpointing']} | {row['variant']} | {row['pairs_per_s']:.2f} "
            f"| {row['peak_gib']:.1f} | {row['of_floor']:.2f} | {row['pairs_per_s'] / peer['pairs_per_s']:.2f} | {memory:.2f} |"
        )


if __name__ == "__main__":
    main()
