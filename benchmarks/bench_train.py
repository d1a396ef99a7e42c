"""Training on preference pairs: CPU seconds per step and peak memory, beside TRL's DPOTrainer on the same pairs and model.

Peers: TRL as it runs on a CPU (its head scores every position there), and TRL with its head scoring response positions only, as
on a GPU. Ours: packed route, reference log-probs stored; its reference pass is measured too and shared out over the epochs.
One random LLaVA-shaped model (576 tokens an image), LoRA, one pair a step, answers of about 30 tokens. Every variant runs in a
process of its own; memory is what training adds to the loaded model and libraries, and the whole peak.

    uv run python benchmarks/bench_train.py [--images 3] [--steps 3] [--epochs 3] [--hidden 384] [--layers 8] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VARIANTS = ["trl", "trl_response", "packed", "kv", "packed_bf16", "plain"]
ANSWER_WORDS = 29
WORDS = [f"w{k}" for k in range(500)]


def model_and_processor(arguments: argparse.Namespace) -> tuple[Any, Any]:
    import transformers as hf
    from random_llava import random_llava
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *WORDS]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    images = hf.CLIPImageProcessor(size={"height": arguments.pixels, "width": arguments.pixels}, do_center_crop=False)
    processor = hf.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %} <image> {% else %}"
        "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} ",
    )  # fmt: skip
    hidden = arguments.hidden
    model = random_llava(
        hidden, arguments.layers, feed_forward=int(hidden * 2.6875), vocab=32064, image_token=4, pixels=arguments.pixels,
        vision=(hidden // 2, 2 * hidden, 4, 4),
    )  # fmt: skip
    return model, processor


def picture(name: str, pixels: int) -> Any:
    import numpy as np
    from PIL import Image

    noise = np.random.RandomState(int(name)).randint(0, 255, (pixels, pixels, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def texts(number: int, images: int) -> tuple[str, str, str]:
    """Prompt, chosen and rejected answer."""

    def words(seed: int, count: int) -> str:
        return " ".join(WORDS[(seed * 7919 + k * 104729) % len(WORDS)] for k in range(count))

    labels = "".join(f"Image{k + 1}:<image>\n" for k in range(images))
    return f"{labels}{words(number, 20)}", words(number + 1, ANSWER_WORDS), words(number + 2, ANSWER_WORDS)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_trl(arguments: argparse.Namespace, response_only: bool, out: Path) -> dict[str, float]:
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback

    if response_only:
        trl.trainer.utils._use_triton = lambda device: True
    model, processor = model_and_processor(arguments)
    rows = []
    for number in range(arguments.steps + 1):
        prompt, chosen, rejected = texts(number, arguments.images)
        pictures = [picture(str(number * 10 + k), arguments.pixels) for k in range(arguments.images)]
        ended = {"chosen": f"{chosen} </s>", "rejected": f"{rejected} </s>"}
        rows.append({"prompt": prompt.replace("<image>", " <image> "), **ended, "images": pictures})
    stamps: list[tuple[float, float]] = []

    class Stamps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stamps.append((cpu_seconds(), time.perf_counter()))

    config = trl.DPOConfig(
        output_dir=str(out), loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.1], beta=0.1, max_length=None, report_to=[],
        use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=1, max_steps=arguments.steps + 1,
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    pattern = rf"model\.language_model\.(.*\.)?({'|'.join(names)})"
    trainer = trl.DPOTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        peft_config=LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules=pattern),
        callbacks=[Stamps()],
    )
    before = peak_mb()
    trainer.train()
    return {**per_step(stamps, arguments.steps), "before_mb": before}


def preference_pairs(count: int, images: int) -> list[Any]:
    """Sequences of so many pictures (`picture` opens them)."""
    from mia_augment.records import PreferencePair, Region, Scores

    pairs = []
    for number in range(count):
        prompt, chosen, rejected = texts(number, images)
        names = [str(number * 10 + k) for k in range(images)]
        pairs.append(
            PreferencePair(
                id=str(number), format="sequence", images=names, prompt=prompt,
                chosen=chosen, rejected=rejected, scores=Scores(), target=0,
                regions=[Region(image=k, label=f"Image{k + 1}") for k in range(images)],
            )
        )  # fmt: skip
    return pairs


def run_ours(arguments: argparse.Namespace, variant: str, out: Path) -> dict[str, float]:
    from mia_dpo_train import TrainSettings, train

    model, processor = model_and_processor(arguments)
    pairs = preference_pairs(arguments.steps + 1, arguments.images)
    route, _, precision = variant.partition("_")
    settings = TrainSettings.model_validate(
        {
            "lora": {"r": arguments.rank, "alpha": 2 * arguments.rank}, "accumulation": 1, "route": route,
            "gradient_checkpointing": False, "precision": precision or "fp32", "trackers": [], "checkpoint_every": 10**6,
        }
    )  # fmt: skip
    stamps: list[tuple[float, float]] = []
    totals: list[int] = []
    before = peak_mb()

    def progress(done: int, total: int | None) -> None:
        stamps.append((cpu_seconds(), time.perf_counter()))
        totals.append(total or 0)

    train(
        pairs, model, processor, settings, out, open_image=lambda name: picture(name, arguments.pixels), model_id="random",
        progress=progress,
    )  # fmt: skip
    stamps = [
        stamp for stamp, total in zip(stamps, totals, strict=True) if total == totals[-1]
    ]  # not those of opening the pairs
    reference_batches = totals[-1] - (arguments.steps + 1)
    steps = per_step(stamps[reference_batches:], arguments.steps)
    between = stamps[reference_batches - 1][0] - stamps[0][0]
    steps["reference_cpu_s_per_pair"] = between / max(1, (reference_batches - 1) * 2)
    return {**steps, "before_mb": before}


def per_step(stamps: list[tuple[float, float]], steps: int) -> dict[str, float]:
    """CPU and wall seconds a step, the first one left out; peak memory."""
    (cpu, wall), (cpu_end, wall_end) = stamps[0], stamps[steps]
    return {"cpu_s": (cpu_end - cpu) / steps, "wall_s": (wall_end - wall) / steps, "peak_mb": peak_mb()}


def measure(variant: str, arguments: argparse.Namespace) -> dict[str, float]:
    import torch

    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if variant.startswith("trl"):
            return run_trl(arguments, variant == "trl_response", Path(folder))
        return run_ours(arguments, variant, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"images": 3, "steps": 3, "epochs": 3, "hidden": 384, "layers": 8, "rank": 16, "pixels": 336, "threads": 2}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--run", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(measure(arguments.run, arguments)))
        return
    found: dict[str, dict[str, float]] = {}
    for variant in arguments.variants:
        command = [sys.executable, __file__, "--run", variant]
        command += [part for name in defaults for part in (f"--{name}", str(getattr(arguments, name)))]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[variant] = json.loads(output.splitlines()[-1])
        print(variant, {name: round(value, 2) for name, value in found[variant].items()}, flush=True)
    report(found, arguments.epochs)


def report(found: dict[str, dict[str, float]], epochs: int) -> None:
    print(f"\n| variant | CPU s / step | with reference pass over {epochs} epochs | peak MB | of it by training |")
    print("|---|---|---|---|---|")
    for variant, row in found.items():
        row["whole"] = row["cpu_s"] + row.get("reference_cpu_s_per_pair", 0.0) / epochs
        row["added"] = row["peak_mb"] - row["before_mb"]
        print(f"| {variant} | {row['cpu_s']:.2f} | {row['whole']:.2f} | {row['peak_mb']:.0f} | {row['added']:.0f} |")
    for peer in ("trl", "trl_response"):
        for ours in ("packed", "kv", "packed_bf16"):
            if peer in found and ours in found:
                ratios = {key: found[peer][key] / found[ours][key] for key in ("cpu_s", "whole", "peak_mb", "added")}
                print(
                    f"{ours} against {peer}: {ratios['cpu_s']:.2f}x less CPU time a step ({ratios['whole']:.2f}x with the "
                    f"reference pass), {ratios['peak_mb']:.2f}x less memory ({ratios['added']:.2f}x less added)"
                )


if __name__ == "__main__":
    main()
