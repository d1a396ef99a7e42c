"""What looking inside costs beside plain generation: `look` and its parts, heads, states, knockouts, steering, sinks, lens.

    OMP_NUM_THREADS=1 uv run python benchmarks/bench_inside.py [--model random] [--repeats 3] [--only look knockout]

`embedded`: three drawn pictures, the model's own answer. `random`: a LLaVA-shaped model of random weights, three pictures of
576 tokens, 16 new tokens. All ways in turn in one process on one thread, preprocessing included; medians of CPU seconds, which
bear a busy machine, and of each round's ratio to plain generation in that round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from mia_attention import (
    capture_attention,
    capture_states,
    delimiters_scaled,
    encode_prompts,
    heads_scaled,
    image_words,
    images_hidden,
    images_rebalanced,
    knockout,
    look,
)
from mia_attention.looking.asked import ask_about
from mia_attention.measure.massive_sinks import massive_prompts
from mia_attention.models.decoder import decoder_layers
from mia_attention.states.hidden_states import decoder_blocks

TOKENS, PICTURES, PIXELS = 16, 3, 336
PARTS = ("gradient", "alone", "knockout")


def embedded() -> tuple[Any, Any, list[Any], str]:
    from mia_cli.drawn import drawing
    from mia_cli.loading.load import load

    rng = random.Random(3)
    pictures = [drawing.draw_scene(rng.choice(drawing.scenes("test")), rng)[0] for _ in range(PICTURES)]
    return *load("embedded"), pictures, "In Image2, what color are the shapes?"


def made_up() -> tuple[Any, Any, list[Any], str]:
    from bench_train import model_and_processor, picture

    model, processor = model_and_processor(argparse.Namespace(hidden=512, layers=12, pixels=PIXELS))
    return model.eval(), processor, [picture(str(index), PIXELS) for index in range(PICTURES)], "In Image2, w7 w8 w9 w10"


def ways(model: Any, processor: Any, pictures: list[Any], question: str) -> dict[str, Callable[[], Any]]:
    """What is measured; `plain` opens, encodes and answers."""
    prompt, barred = ask_about(pictures, question).prompt, [model.config.image_token_id]
    middle, layers = len(decoder_layers(model)) // 2, list(decoder_layers(model))

    def encoded() -> Any:
        return encode_prompts(model, processor, [prompt], [pictures])

    def generate(read: Any) -> list[int]:
        out = model.generate(**read.inputs, do_sample=False, max_new_tokens=TOKENS, suppress_tokens=barred)
        return out[0, read.prompt_length :].tolist()  # type: ignore[no-any-return]

    def within(context: Callable[[Any], Any]) -> Callable[[], Any]:
        def run() -> Any:
            read = encoded()
            with context(read):
                return generate(read)

        return run

    def looked(**parts: bool) -> Callable[[], Any]:
        options = {**dict.fromkeys(PARTS, False), **parts}
        return lambda: look(model, processor, pictures, question, max_new_tokens=TOKENS, **options)

    answer = generate(encoded())
    last = len(decoder_blocks(model)[0])
    return {
        "plain": lambda: generate(encoded()),
        "look: attention alone": looked(),
        **{f"look: attention, {name}": looked(**{name: True}) for name in PARTS},
        "look: everything": looked(**dict.fromkeys(PARTS, True)),
        "heads of one layer": within(lambda _: capture_attention(model, [middle], heads=True)),
        "heads of all layers": within(lambda _: capture_attention(model, layers, heads=True)),
        "states of all layers, last prompt token": within(lambda _: capture_states(model, range(1, last + 1), positions=[-1])),
        "a picture hidden while answering": within(lambda read: images_hidden(model, read, [0])),
        "a picture weighted twice while answering": within(lambda read: images_rebalanced(model, read, {0: 2.0})),
        "a head scaled while answering": within(lambda _: heads_scaled(model, [(middle, 0)], 2.0)),
        "delimiters scaled while answering": within(lambda read: delimiters_scaled(model, read)),
        f"knockout of {len(pictures)} pictures (answer given)": lambda: knockout(model, encoded(), [answer]),
        "massive sinks of the middle layer (a pass)": lambda: massive_prompts(model, encoded(), [middle]),
        "lens of every visual token, one layer": lambda: image_words(model, processor, pictures, question, layers=[last]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["embedded", "random"], default="embedded")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[""], help="words of the ways' names; plain always")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, processor, pictures, question = embedded() if options.model == "embedded" else made_up()
    every = ways(model, processor, pictures, question)
    chosen = {name: way for name, way in every.items() if name == "plain" or any(word in name for word in options.only)}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    every["plain"]()  # warms up
    for _ in range(options.repeats):
        for name, way in chosen.items():
            began = time.process_time()
            with torch.enable_grad() if "gradient" in name or "everything" in name else torch.inference_mode():
                way()
            seconds[name].append(time.process_time() - began)
    length = encode_prompts(model, processor, [ask_about(pictures, question).prompt], [pictures]).prompt_length
    print(f"{options.model}: {len(pictures)} pictures, prompt of {length} tokens, torch {torch.__version__}, one thread")
    for name, each in seconds.items():
        ratios = [one / plain for one, plain in zip(each, seconds["plain"], strict=True)]
        print(
            f"{name:50} {statistics.median(each):7.3f} s  {statistics.median(ratios):6.3f}  {min(ratios):.3f}-{max(ratios):.3f}"
        )


if __name__ == "__main__":
    main()
