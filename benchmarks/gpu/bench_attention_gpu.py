"""Samples per second and peak GPU memory of answering with attention: plain, captured, and eager one at a time.

Random weights in LLaVA-1.5-7B's shape, bf16, 2 to 5 images of 576 tokens. For each number of images every batch size is tried
until memory runs out, and each way's best is compared: our capture should stay within 3 % of plain generation, and answer at
least ten times as many samples a second as eager attention with `output_attentions=True`, which holds one sample at a time.
Ends with a Markdown table: samples/s of each way at its best batch, with that batch and its peak memory above the model.

    PYTHONPATH=packages/mia-augment/src:packages/mia-attention/src python benchmarks/gpu/bench_attention_gpu.py [--json OUT]

Needs torch with CUDA, transformers, pydantic, pillow, numpy; downloads nothing. `--tiny` tries the script on any machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from mia_attention import capture_attention
from mia_attention.answering.batches import is_out_of_memory
from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE_TOKEN, TEXT_TOKENS = 9, 64
WAYS = ("plain", "captured", "eager")


def build(tiny: bool, device: str) -> Any:
    """LLaVA-1.5-7B's shape (or a tiny one), random weights made on the device."""
    vision: dict[str, Any] = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    text: dict[str, Any] = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    if tiny:
        vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=336, patch_size=14),
        text_config=LlamaConfig(**text, vocab_size=32064, max_position_embeddings=4096),
        image_token_index=IMAGE_TOKEN,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if tiny else torch.bfloat16)
    try:
        with torch.device(device):
            return LlavaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)


def make_inputs(model: Any, images: int, batch: int) -> dict[str, torch.Tensor]:
    """Prompts of text, images, text; every second one padded a little on the left."""
    device = model.device
    length = images * 576 + TEXT_TOKENS
    ids = torch.randint(10, 32000, (batch, length), device=device)
    ids[:, 16 : 16 + images * 576] = IMAGE_TOKEN
    mask = torch.ones_like(ids)
    mask[1::2, :8] = 0
    pixels = torch.rand(batch * images, 3, 336, 336, device=device, dtype=model.dtype)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def answer(way: str, model: Any, inputs: dict[str, torch.Tensor], tokens: int) -> torch.Tensor:
    """Answer; the mean attention of the generated rows of the middle layer, (batch, prompt), except for plain."""
    layer = model.config.text_config.num_hidden_layers // 2
    prompt = inputs["input_ids"].shape[1]
    eager = way == "eager"
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        pad_token_id=0,
        output_attentions=eager,
        return_dict_in_generate=eager,
    )
    with torch.inference_mode():
        if way == "plain":
            out: torch.Tensor = model.generate(**inputs, generation_config=greedy)
            return out
        if way == "captured":
            with capture_attention(model, [layer]) as captured:
                model.generate(**inputs, generation_config=greedy)
            return captured.attention(layer)[..., :prompt].mean(1)
        model.set_attn_implementation("eager")
        try:
            steps = model.generate(**inputs, generation_config=greedy).attentions[1:]
        finally:
            model.set_attn_implementation("sdpa")
        return torch.stack([step[layer][..., :prompt].float().mean(1)[:, 0] for step in steps]).mean(0)


def measure(way: str, model: Any, images: int, batch: int, tokens: int, repeats: int) -> dict[str, float] | None:
    """Median samples per second and peak memory above the model in GiB; None: it does not fit."""
    cuda = model.device.type == "cuda"
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    base = torch.cuda.memory_allocated() if cuda else 0
    try:
        inputs = make_inputs(model, images, batch)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            answer(way, model, inputs, tokens)
            if cuda:
                torch.cuda.synchronize()
            if repeat:  # the first one warms up
                seconds.append(time.perf_counter() - start)
    except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    peak = (torch.cuda.max_memory_allocated() - base) / 2**30 if cuda else float("nan")
    return {"per_second": batch / statistics.median(seconds), "peak_gib": peak}


def check(model: Any, tokens: int) -> float:
    """Largest difference between captured and eager attention on one sample of two images."""
    inputs = make_inputs(model, 2, 1)
    return float((answer("captured", model, inputs, tokens) - answer("eager", model, inputs, tokens)).abs().max())


def cell(figure: dict[str, Any]) -> str:
    return f"{figure['per_second']:.2f}/s, batch {figure['batch']}, {figure['peak_gib']:.1f} GiB"


def table(figures: list[dict[str, Any]], counts: list[int]) -> str:
    """Each way's best batch for each number of images, as Markdown."""
    lines = [
        "",
        "| images | plain | captured | captured takes | eager, `output_attentions=True` | captured against eager |",
        "|---|---|---|---|---|---|",
    ]
    for images in counts:
        fits = [figure for figure in figures if figure["images"] == images and "per_second" in figure]
        best = {
            way: max((figure for figure in fits if figure["way"] == way), key=lambda figure: figure["per_second"], default=None)
            for way in WAYS
        }
        plain, captured, eager = (best[way] for way in WAYS)
        slower = f"**{plain['per_second'] / captured['per_second']:.3f}** x plain" if plain and captured else "-"
        faster = f"**{captured['per_second'] / eager['per_second']:.1f}** x samples/s" if captured and eager else "-"
        plain, captured, eager = (cell(figure) if figure else "out of memory" for figure in (plain, captured, eager))
        lines.append(f"| {images} | {plain} | {captured} | {slower} | {eager} | {faster} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2, 3, 4, 5])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write all figures there")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on the CPU if there is no GPU")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.tiny:
        raise SystemExit("no GPU found: expected one (or --tiny to try the script)")
    model = build(args.tiny, device)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, {model.dtype}, {args.tokens} new tokens"
    )
    print(f"captured against eager: largest difference {check(model, args.tokens):.1e}")
    figures = []
    for images in args.images:
        for way in WAYS:
            for batch in args.batches if way != "eager" else [1]:
                found = measure(way, model, images, batch, args.tokens, args.repeats)
                figures.append({"images": images, "way": way, "batch": batch, **(found or {})})
                text = "out of memory" if found is None else cell(figures[-1])
                print(f"{images} images  {way:9} batch {batch:3}  {text}", flush=True)
                if found is None:
                    break
    print(table(figures, args.images))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
