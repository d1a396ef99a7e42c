"""What works with one type of transformers' table, measured on its tiny build: spans, rows, score, training and boxes."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from family_builds import build
from mia_attention import BoxCoverage, ScoreSettings, capture_attention, score
from mia_attention.answering.model_view import encode_prompts
from mia_attention.models.decoder import decoder_layers, why_unread
from mia_attention.models.inputs import Encoded
from mia_attention.models.painting import changed_tokens
from mia_augment import PreferencePair, Region, Sample, Scores, Source
from mia_augment.prompting import stop_ids
from mia_dpo_train.data.encode import PairEncoder
from mia_dpo_train.data.pair_set import Measured, PairSet
from mia_dpo_train.joining import joining_problem
from mia_dpo_train.logps.route_check import as_in_training, batch_problem, choose_route
from mia_dpo_train.logps.routes import PairLogps
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.settings import TrainSettings
from PIL import Image
from tiny_models import Build

COLUMNS = ("attention", "score", "training", "boxes")
STEPS, SECONDS = 4, 60
ROWS, LOGPS = 1e-5, 1e-3
"""Largest differences in attention and in nats."""
PICTURES = {"a.png": (100, 60, 1), "b.png": (70, 130, 2), "c.png": (64, 64, 3), "d.png": (150, 90, 4)}


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table: an empty string where a thing works, else why it does not."""

    name: str
    attention: str = ""
    score: str = ""
    training: str = ""
    boxes: str = ""
    route: str = ""
    readout: str = ""
    """By which answers are measured, where attention cannot be read."""
    largest: tuple[float, float] = (0.0, 0.0)
    """Differences found: of attention, and of log-probs in nats."""


class Wrong(Exception):
    """A number differs from the one computed independently."""


def measured(name: str) -> Line:
    """Build a type and try everything with it."""
    try:
        made = build(name)
    except Exception as error:
        reason = (
            str(error) if isinstance(error, NotImplementedError) else f"its tiny build fails ({type(error).__name__}: {error})"
        )
        return Line(name, *[" ".join(reason.split())] * 4)
    rows: list[float] = []
    said: list[Any] = []
    readout: list[str] = []
    several = not single(name)
    tries: dict[str, Callable[[], Any]] = {
        "attention": lambda: rows.append(check_attention(made, several=several)),
        "score": lambda: readout.append(check_score(made, several=several)),
        "training": lambda: said.append(check_training(made, several=several)),
        "boxes": lambda: check_boxes(made, several=several),
    }
    found = {}
    for column, run in tries.items():
        with torch.random.fork_rng():
            found[column] = _problem(run)
    route, difference = said[0] if said else ("", 0.0)
    by = readout[0] if readout else ""
    return Line(name, **found, route=route, readout=by, largest=(rows[0] if rows else 0.0, difference))


def single(name: str) -> bool:
    """Whether a type takes one picture a prompt."""
    from family_exceptions import EXCEPTIONS

    return bool(EXCEPTIONS.get(name, {}).get("single"))


def _problem(run: Callable[[], Any]) -> str:
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        run()
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".removeprefix("Wrong: ").split())
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return ""


def _too_long(*_: Any) -> None:
    raise Wrong(f"it takes more than {SECONDS} s of computing")


signal.signal(signal.SIGVTALRM, _too_long)


def picture(name: str) -> Image.Image:
    width, height, seed = PICTURES[name]
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _encoded(made: Build, rows: list[list[Image.Image]]) -> Encoded:
    prompts = ["<image>" * len(images) + "what is in image ?" + " a" * index for index, images in enumerate(rows)]
    return encode_prompts(made.model, made.processor, prompts, rows)


@contextlib.contextmanager
def seen_by_decoder(model: Any) -> Iterator[list[torch.Tensor]]:
    """The embeddings with which the language model is called."""
    seen: list[torch.Tensor] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = kwargs.get("inputs_embeds", args[0] if args else None)
        if torch.is_tensor(found) and found.is_floating_point():
            seen.append(found.detach().clone())

    hook = model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def embeddings(made: Build, rows: list[list[Image.Image]]) -> tuple[torch.Tensor, Encoded]:
    """What the language model gets for a batch, (batch, length, width); its first layer's input where it is not called so."""
    encoded = _encoded(made, rows)
    first = next(iter(decoder_layers(made.model).values()))
    layer: list[torch.Tensor] = []
    hook = first.register_forward_pre_hook(
        lambda _, args, kwargs: layer.append(kwargs.get("hidden_states", args[0] if args else None)), with_kwargs=True
    )
    with torch.no_grad(), seen_by_decoder(made.model) as seen:
        made.model(**encoded.inputs)
    hook.remove()
    places = [(row, place) for row, each in enumerate(encoded.image_tokens) for place in each]
    blank = seen and not any(seen[0][row, place].any() for row, place in places)
    # where they are, pictures are added to what the layers get (Granite 4 Vision)
    return (layer if blank or not seen else seen)[0], encoded


def check_attention(made: Build, *, several: bool = True) -> float:
    """Spans by perturbation, rows against eager attention; the largest difference of rows."""
    if (reason := why_unread(made.model)) is not None:
        raise Wrong(reason)
    check_spans(made, several=several)
    encoded = _encoded(made, [[picture("a.png")], [picture("b.png"), picture("c.png")] if several else [picture("b.png")]])
    layers = list(decoder_layers(made.model))
    greedy: dict[str, Any] = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    with capture_attention(made.model, layers) as captured:
        tokens = made.model.generate(**encoded.inputs, **greedy)
    expected, said = _eager_rows(made, encoded, layers, greedy)
    if not torch.equal(tokens, said):
        raise Wrong("eager attention says something else")
    worst = max((captured.attention(layer) - expected[layer]).abs().max().item() for layer in layers)
    if not worst <= ROWS:
        raise Wrong(f"captured rows differ from eager by {worst:.1e}")
    return worst


def _eager_rows(
    made: Build, encoded: Encoded, layers: list[int], greedy: dict[str, Any]
) -> tuple[dict[int, torch.Tensor], Any]:
    kept = made.model.config._attn_implementation
    made.model.set_attn_implementation("eager")
    try:
        out = made.model.generate(**encoded.inputs, **greedy, output_attentions=True, return_dict_in_generate=True)
    finally:
        made.model.set_attn_implementation(kept)
    whole = encoded.prompt_length + STEPS - 1
    rows: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    for step, attentions in enumerate(out.attentions[1:], 1):
        per_layer = [each for each in attentions if each is not None]
        for place, layer in enumerate(layers):
            row = per_layer[layer if len(per_layer) > max(layers) else place].float().mean(1)
            seen = encoded.prompt_length + step
            rows[layer].append(torch.nn.functional.pad(row, (seen - row.shape[-1], whole - seen)))
    return {layer: torch.cat(found, 1) for layer, found in rows.items()}, out.sequences


def check_spans(made: Build, *, several: bool = True) -> None:
    """Another picture changes the embeddings of its own tokens and of no other picture's."""
    names = ["a.png", "b.png"] if several else ["a.png"]
    pictures = [picture(name) for name in names]
    before, encoded = embeddings(made, [[picture("c.png")], pictures])
    places = encoded.image_tokens[1]
    if len(places) != len(names) or any(not len(place) for place in places):
        raise Wrong(f"{[len(place) for place in places]} tokens for {len(names)} pictures")
    for index, shown in enumerate(pictures):
        other = [shown.transpose(Image.Transpose.ROTATE_180) if i == index else each for i, each in enumerate(pictures)]
        after, again = embeddings(made, [[picture("c.png")], other])
        if before.shape != after.shape:
            raise Wrong("another picture of the same size makes another number of tokens")
        change = (before[1] - after[1]).abs().amax(-1)
        changed = change > 1e-4 * change.max()
        own = torch.zeros_like(changed)
        own[places[index]] = True
        if (changed & ~own).any() or changed.sum() < 0.25 * own.sum():
            own_changed, others = int((changed & own).sum()), int((changed & ~own).sum())
            raise Wrong(f"picture {index}: {own_changed} of {int(own.sum())} tokens change, {others} others")
        if not all(torch.equal(one, two) for one, two in zip(places, again.image_tokens[1], strict=True)):
            raise Wrong("places move with what a picture shows")


def check_score(made: Build, *, several: bool = True) -> str:
    """Samples of one and two pictures are answered and measured; by which readout, where attention cannot be read."""
    samples = [_sample("one", ["a.png"])]
    samples.append(_sample("two", ["b.png", "c.png"]) if several else _sample("other", ["b.png"]))
    if why_unread(made.model) is not None:
        check_alone(made, [*samples[: 1 + several], _grid()])
        return "alone"
    scored = list(score(samples, made.model, made.processor, ScoreSettings(max_new_tokens=3, batch_size=2), open_image=picture))
    for found in scored:
        masses = found.attention.image_mass
        if found.response_tokens > 1 and not (masses and 0 < sum(masses) < 1 + 1e-4):
            raise Wrong(f"attention on pictures: {masses} ({found.attention.reason})")
    return ""


def check_alone(made: Build, samples: list[Sample]) -> None:
    """Samples are answered, and the answer's likelihood under each part alone is that of a batch of one."""
    settings = ScoreSettings(max_new_tokens=3, batch_size=2, layer="alone")
    for found in score(samples, made.model, made.processor, settings, open_image=picture):
        if found.parts == 1:
            continue
        logps = found.attention.logp_alone
        if found.attention.ratio is None or logps is None or not found.response_ids:
            raise Wrong(f"no likelihood under each picture alone: {found.attention.reason}")
        answer = torch.tensor(found.response_ids)
        for path, logp in zip(found.source.paths, logps.summed, strict=True):
            pair = PairEncoder(made.processor, picture)(_pair("part", [path], "red", "blue"))
            worst = abs(_logp(made, pair, answer).item() - (logp or 0.0))
            if not worst <= LOGPS:
                raise Wrong(f"the likelihood under {path} alone differs from that of a batch of one by {worst:.1e} nats")


def _grid() -> Sample:
    """Two pictures within one."""
    boxes = [(0, 0, 70, 90), (80, 0, 150, 90)]
    return Sample(
        id="grid",
        format="grid",
        images=["d.png"],
        regions=[Region(image=0, box=box, label=f"part {index}") for index, box in enumerate(boxes)],
        target=1,
        prompt="<image>\nwhat is in image ?",
        answer="red",
        source=Source(ids=["a", "b"], paths=["a.png", "b.png"], question="what is in image ?"),
    )


def _sample(name: str, images: list[str]) -> Sample:
    return Sample(
        id=name,
        format="sequence" if len(images) > 1 else "single",
        images=images,
        regions=[Region(image=index, label=f"Image{index + 1}") for index in range(len(images))],
        target=len(images) - 1,
        prompt="<image>" * len(images) + "\nwhat is in image ?",
        answer="red",
        source=Source(ids=images, paths=images, question="what is in image ?"),
    )


def check_training(made: Build, *, several: bool = True) -> tuple[str, float]:
    """The route of the start-up check, its log-probs against each answer alone, a gradient; route and largest difference."""
    pairs = [
        _pair("one", ["a.png"], "a red cat", "two dog"),
        _pair("two", ["b.png", "c.png"] if several else ["b.png"], "blue", "one green dog"),
    ]
    encoder = PairEncoder(made.processor, picture, stop_ids(made.model, made.processor))
    chosen = PairSet(pairs, encoder)
    chosen.keep([0, 1], [Measured(chosen[index].length, 0, "") for index in range(2)])
    chosen.together = joining_problem(chosen) is not None
    logps = PairLogps(made.model, model_facts(made.model), "plain")
    batch, alone = chosen.batch([0, 1], 0), [chosen.batch([index], 0) for index in range(2)]
    problem = batch_problem(logps, batch, alone, logps.compute)
    used = batch if problem is None else alone[0]
    settings = TrainSettings(per_device_batch_size=2 if problem is None else 1, gradient_checkpointing=False)
    route = choose_route(logps, used, settings, logps.compute).route
    logps.route = route
    with as_in_training(logps, used, logps.compute):
        found = torch.cat([logps.compute(each) for each in ([batch] if problem is None else alone)], dim=1)
        (found[0] - found[1]).sum().backward()
    gradients = [p.grad for p in made.model.parameters() if p.grad is not None]
    if not gradients or not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise Wrong("gradients are missing or no numbers")
    made.model.zero_grad(set_to_none=True)
    expected = torch.stack([_alone(made, chosen[index]) for index in range(2)], dim=1)
    worst = (found.detach() - expected).abs().max().item()
    if not worst <= LOGPS:
        raise Wrong(f"log-probs differ from those of each answer alone by {worst:.1e} nats")
    return route if problem is None else f"{route}, one pair at a time", worst


def _pair(name: str, images: list[str], chosen: str, rejected: str) -> PreferencePair:
    sample = _sample(name, images)
    return PreferencePair(
        id=name,
        format=sample.format,
        images=images,
        prompt=sample.prompt,
        chosen=chosen,
        rejected=rejected,
        scores=Scores(),
        target=sample.target,
        regions=sample.regions,
    )


def _alone(made: Build, pair: Any) -> torch.Tensor:
    """Log-probs of chosen and rejected answer, each with its prompt as a batch of one: (2,)."""
    return torch.stack([_logp(made, pair, answer) for answer in (pair.chosen, pair.rejected)])


def _logp(made: Build, pair: Any, answer: torch.Tensor) -> torch.Tensor:
    """Log-prob of an answer to a pair's prompt."""
    if made.model.config.is_encoder_decoder:
        return _decoded_logp(made, pair, answer)
    ids = torch.cat([pair.prompt, answer])[None]
    inputs: dict[str, Any] = {**pair.vision, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name, values in pair.types.items():
        fill = 1 if made.model.config.model_type.startswith("paligemma") else 0
        further = (
            torch.full_like(answer, fill) if values.dim() == 1 else values[-1:].repeat(len(answer), *[1] * (values.dim() - 1))
        )
        inputs[name] = torch.cat([values, further])[None]
    with torch.no_grad():
        logits = made.model(**inputs).logits.float()[0, -len(answer) - 1 : -1]
    return logits.log_softmax(-1)[range(len(answer)), answer].sum()


def _decoded_logp(made: Build, pair: Any, answer: torch.Tensor) -> torch.Tensor:
    """Likewise, token by token in the decoder, whose first token is the one that `generate` begins with."""
    names = inspect.signature(made.model.forward).parameters
    prompt = pair.prompt[None]
    inputs = {**pair.vision, "input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    inputs |= {name: values[None] for name, values in pair.types.items()}
    inputs = {name: value for name, value in inputs.items() if name in names}
    with torch.no_grad():
        said = made.model.generate(**inputs, max_new_tokens=1, do_sample=False)[:, :1]
        total = torch.zeros(())
        for token in answer:
            logits = made.model(**inputs, decoder_input_ids=said).logits[0, -1].float()
            total = total + logits.log_softmax(-1)[token]
            said = torch.cat([said, token.view(1, 1)], 1)
    return total


def check_boxes(made: Build, *, several: bool = True) -> None:
    """The tokens that see a painted box are those that its pixels change."""
    size, box = (150, 90), (80, 50, 110, 80)
    coverage = BoxCoverage(made.model, made.processor)
    if not coverage.known:
        raise Wrong(coverage.order.reason)
    for before in (0, 1) if several else (0,):
        changed = changed_tokens(made.model, made.processor, size, box, before)
        weights = coverage(size, box, tokens=len(changed), several=bool(before))
        seen = (weights > 0.05).nonzero()[:, 0].tolist()
        moved = (changed > 1e-3).nonzero()[:, 0].tolist()
        if not set(seen) <= set(moved) or bool((changed[weights == 0] > 1e-3).any()):
            raise Wrong(f"the box is seen by {seen}, its pixels change {moved} of {len(changed)}")
        if not 0 < len(moved) < len(changed):
            raise Wrong(f"{len(moved)} of {len(changed)} tokens change")
