"""Reading attention while generating, beside plain generation and beside eager `output_attentions=True`.

One random LLaVA-shaped model, the same inputs for all, on the CPU. Times are interleaved in one process and their medians
compared, as wall and as CPU seconds (these bear a busy machine); memory is each way's peak above the loaded model, in a process
of its own. Then the ways to read given answers to that prompt, which `read_answers` chooses from. Prints ratios.

    uv run python benchmarks/bench_attention.py [--images 5] [--layers 12] [--width 512] [--tokens 16] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mia_attention import capture_attention, capture_rollout, read_answers
from random_llava import PATCH, random_llava
from transformers import GenerationConfig

IMAGE_TOKEN, PIXELS, TEXT_TOKENS = 9, 336, 40
WAYS = ("plain", "captured", "heads", "all_heads", "rollout", "gradient", "eager")


def build(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    model = random_llava(
        args.width, args.layers, feed_forward=args.width * 11 // 4, vocab=1000, image_token=IMAGE_TOKEN, pixels=PIXELS,
        vision=(64, 128, 2, 2),
    ).eval()  # fmt: skip
    per_image = (PIXELS // PATCH) ** 2
    ids = torch.randint(10, 1000, (1, args.images * per_image + TEXT_TOKENS))
    ids[:, TEXT_TOKENS // 2 : TEXT_TOKENS // 2 + args.images * per_image] = IMAGE_TOKEN
    pixels = torch.rand(args.images, 3, PIXELS, PIXELS)
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def greedy_decoding(tokens: int, **more: bool) -> GenerationConfig:
    """Exactly so many tokens, none of them an image's."""
    fixed = {"do_sample": False, "max_new_tokens": tokens, "min_new_tokens": tokens, "pad_token_id": 0}
    return GenerationConfig(**fixed, suppress_tokens=[IMAGE_TOKEN], **more)


def runner(way: str, model: Any, inputs: dict[str, Any], args: argparse.Namespace) -> Callable[[], Any]:
    """What is measured: answer, and have one layer's mean attention of the generated rows in hand (plain: the answer only)."""
    eagerly = way == "eager"
    greedy = greedy_decoding(args.tokens, output_attentions=eagerly, return_dict_in_generate=eagerly)
    layer, prompt = args.layers // 2, inputs["input_ids"].shape[1]

    def plain() -> Any:
        return model.generate(**inputs, generation_config=greedy)

    def captured() -> Any:
        with capture_attention(model, [layer]) as rows:
            plain()
        return rows.attention(layer).mean(1)

    def heads() -> Any:
        with capture_attention(model, [layer], heads=True) as rows:
            plain()
        return rows.heads(layer).mean((1, 2))

    def all_heads() -> Any:
        with capture_attention(model, range(args.layers), heads=True) as rows:
            plain()
        return rows.heads(layer).mean((1, 2))

    def rollout() -> Any:
        with capture_rollout(model) as traced:
            plain()
        start = torch.zeros(1, traced.length)
        start[:, prompt:] = 1 / (traced.length - prompt)
        return traced.rollout(start)

    def gradient() -> Any:
        answer = plain()[0, prompt:].tolist()
        return read_answers(model, inputs, [answer], "gradient").spread

    def eager() -> Any:
        model.set_attn_implementation("eager")
        try:
            out = model.generate(**inputs, generation_config=greedy)
        finally:
            model.set_attn_implementation("sdpa")
        return torch.stack([step[layer][..., :prompt].mean(1)[:, 0] for step in out.attentions[1:]]).mean(0)

    ways: dict[str, Callable[[], Any]] = {
        "plain": plain,
        "captured": captured,
        "heads": heads,
        "all_heads": all_heads,
        "rollout": rollout,
        "gradient": gradient,
        "eager": eager,
    }
    return ways[way]


def given_answers(model: Any, inputs: dict[str, Any], args: argparse.Namespace) -> None:
    """Time each way to read one layer's attention of answers given to the prompt."""
    greedy = greedy_decoding(args.tokens, return_dict_in_generate=True)
    out = model.generate(**inputs, generation_config=greedy)
    answer = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    several = [[(token + shift) % 900 + 10 for token in answer] for shift in range(args.answers)]
    layer = args.layers // 2
    ways: dict[str, Callable[[], Any]] = {
        "one pass": lambda: [read_answers(model, inputs, [one], layer) for one in several],
        "shared prompt": lambda: read_answers(model, inputs, several, layer, prompts=[0] * len(several)),
        "generate's cache": lambda: read_answers(
            model, inputs, several, layer, prompts=[0] * len(several), cache=out.past_key_values
        ),
    }
    print(f"\n{len(several)} given answers of {args.tokens} tokens to that prompt, layer {layer}:")
    first = None
    for name, read in ways.items():
        start, start_cpu = time.perf_counter(), time.process_time()
        read()
        wall, busy = time.perf_counter() - start, time.process_time() - start_cpu
        first = first or busy
        print(f"{name:16} {wall:7.2f} s wall   {busy:7.2f} s CPU {busy / first:5.3f} x one pass each")


def peak_memory(way: str, args: argparse.Namespace) -> float:
    """MB above the loaded model, from a process of its own."""
    command = [sys.executable, __file__, "--memory", way]
    for name in ("images", "layers", "width", "tokens"):
        command += [f"--{name}", str(getattr(args, name))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def status(field: str) -> float:
    """MB of a field of Linux's /proc/self/status: VmRSS now, VmHWM the highest since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"images": 5, "layers": 12, "width": 512, "tokens": 16, "repeats": 3, "answers": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="plain and captured among them")
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    model, inputs = build(args)
    if args.memory:
        forget_peak()
        before = status("VmRSS")
        with torch.inference_mode():
            runner(args.memory, model, inputs, args)()
        print(status("VmHWM") - before)
        return
    ways = args.ways
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    values = {}
    with torch.inference_mode():
        for repeat in range(args.repeats + 1):
            for way in ways:
                start, start_cpu = time.perf_counter(), time.process_time()
                values[way] = runner(way, model, inputs, args)()
                if repeat:  # the first round warms up
                    wall[way].append(time.perf_counter() - start)
                    cpu[way].append(time.process_time() - start_cpu)
    memory = {way: peak_memory(way, args) for way in ways}
    prompt = inputs["input_ids"].shape[1]
    peer = values["eager" if "eager" in ways else "captured"][:, :prompt]
    error = max(
        (values[way][:, :prompt] - peer).abs().max().item() for way in ways if way in ("captured", "heads", "all_heads")
    )
    print(f"prompt {prompt} tokens ({args.images} images), {args.tokens} new; {args.layers} layers x {args.width}")
    peer_name = "eager" if "eager" in ways else "captured"
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; rows against {peer_name}: max difference {error:.1e}")
    for way in ways:
        elapsed, busy = statistics.median(wall[way]), statistics.median(cpu[way])
        times, busy_times = elapsed / statistics.median(wall["plain"]), busy / statistics.median(cpu["plain"])
        more = memory[way] / memory["captured"]
        print(
            f"{way:9} {elapsed:7.2f} s wall {times:5.2f} x plain   {busy:7.2f} s CPU {busy_times:5.3f} x plain   "
            f"{memory[way]:7.0f} MB {more:5.2f} x captured"
        )
    if set(ways) == set(WAYS):
        with torch.inference_mode():
            given_answers(model, inputs, args)


if __name__ == "__main__":
    main()
