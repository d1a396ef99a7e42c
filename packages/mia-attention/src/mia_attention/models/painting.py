"""Which of a model's visual tokens a painted box changes, and which guess of their order says the same.

The box is painted on a black picture; both pictures run through the model up to its language model, with the vision tower's
attention put out and its overlapping convolutions cut to their own cells, so that a token shows its own pixels alone. A guess
that names the tokens that change, for pictures of two shapes and behind another picture, is the model's order of pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mia_augment import IMAGE, Box
from mia_augment.prompting import process, render_prompt
from PIL import Image
from torch import Tensor, nn

from mia_attention.models.decoder import decoder_layers
from mia_attention.models.inputs import encode
from mia_attention.models.pixel_orders import GUESSES, fitting

SHAPES = ((900, 540), (330, 610))
"""Width and height of the pictures that are painted."""
SEEN, CHANGED = 0.05, 1e-3
"""Share of a token's pixels from which it has to change; share of the largest change that counts as one."""


@dataclass(frozen=True)
class PixelOrder:
    """How a model's visual tokens see pixels."""

    guess: str | None
    """Key of `mia_attention.models.pixel_orders.GUESSES`; None: none is right."""
    reason: str
    """Why there is none."""


class _ReachedDecoder(BaseException):
    """Ends a forward pass before the language model."""

    def __init__(self, embeddings: Tensor) -> None:
        self.embeddings = embeddings


def find_order(model: Any, processor: Any, unnormalised: Any) -> PixelOrder:
    """The order that painting confirms.

    Args:
        unnormalised: the processor with pixels in 0..1 where it allows that.
    """
    left, reason = list(GUESSES), ""
    try:
        for size, before in ((SHAPES[0], 0), (SHAPES[1], 0), (SHAPES[0], 1)):
            box = _box_in(size)
            try:
                changed = changed_tokens(model, processor, size, box, before)
            except Exception:
                if before:
                    break  # a processor that takes one picture a prompt, which has been tried in both shapes
                raise
            if not 0 < int((changed > CHANGED).sum()) < len(changed):
                return PixelOrder(None, _mixing(changed))
            seen = dict(fitting(model, processor, _features(unnormalised, size, None), len(changed)))
            if not seen:
                return PixelOrder(None, f"no known order of pixels has {len(changed)} tokens for what the processor gives")
            weights = {name: coverage_of(model, unnormalised, name, size, box, len(changed)) for name in left if name in seen}
            left = [name for name, found in weights.items() if found is not None and _agree(found, changed)]
            if not left:
                return PixelOrder(None, "the tokens that a painted box changes are in none of the known orders")
    except Exception as error:  # processors and models fail in their own ways; whole pictures can be measured all the same
        reason = f"a painted box could not be tried ({type(error).__name__}: {str(error)[:120]})"
        return PixelOrder(None, reason)
    return PixelOrder(left[0], "")


def coverage_of(model: Any, processor: Any, guess: str, size: tuple[int, int], box: Box, tokens: int) -> Tensor | None:
    """Share of each token's pixels that lie in a box, by a guess; None: its shapes do not fit.

    Whatever a processor makes of black and white is 0 and 1, and what it is the same for, such as its own padding, 0.
    """
    seen = []
    for part in (None, (0, 0, *size), box):
        made = GUESSES[guess](model, processor, _features(processor, size, part), tokens)
        if made is None or len(made) != tokens:
            return None
        seen.append(made.float().cpu())
    black, white, painted = seen
    span = white - black
    real = span.abs() > 1e-4
    return torch.where(real, (painted - black) / torch.where(real, span, 1.0), 0.0).clamp(0, 1)


def _features(processor: Any, size: tuple[int, int], box: Box | None) -> Any:
    return process(processor, [render_prompt(processor, IMAGE)], [[_painted(size, box)]])


def _painted(size: tuple[int, int], box: Box | None) -> Image.Image:
    picture = Image.new("RGB", size)
    if box is not None:
        picture.paste((255, 255, 255), box)
    return picture


def _speckled(width: int, height: int) -> Image.Image:
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Image.fromarray(noise.numpy())


def _box_in(size: tuple[int, int]) -> Box:
    width, height = size
    return width * 6 // 10, height * 5 // 10, width * 8 // 10, height * 8 // 10


def _agree(weights: Tensor, changed: Tensor) -> bool:
    """Whether every token that sees much of the box changes and none that sees nothing of it does."""
    moved = changed > CHANGED
    return bool(moved[weights > SEEN].all()) and not bool(moved[weights == 0].any()) and bool((weights > SEEN).any())


def _mixing(changed: Tensor) -> str:
    moved = int((changed > CHANGED).sum())
    if moved:
        return "each of its visual tokens sees the whole picture"
    return "its visual tokens are queries that read the whole picture by attention"


def changed_tokens(model: Any, processor: Any, size: tuple[int, int], box: Box, before: int = 0) -> Tensor:
    """How much painting a box changes each visual token of a picture, against the token that changes most: (tokens,).

    Args:
        before: pictures of another size that stand in the prompt before it.
    """
    others = [_painted((200, 260), (20, 20, 90, 200))] * before
    picture = _painted(size, None)
    plain, places = _visual(model, processor, [*others, picture])
    picture.paste(_speckled(box[2] - box[0], box[3] - box[1]), box)  # a plain patch is nothing to a norm over its pixels
    painted, _ = _visual(model, processor, [*others, picture])
    if plain.shape != painted.shape:
        raise ValueError("a painted picture becomes another number of tokens")
    change = (plain - painted)[places].float().abs().amax(-1).cpu()
    return change / change.max().clamp_min(1e-12)


def _visual(model: Any, processor: Any, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
    """What the language model is given for a prompt, (length, width), and the positions of its last picture's tokens."""
    encoded = encode(model, processor, [render_prompt(processor, IMAGE * len(pictures))], [pictures])

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("inputs_embeds", kwargs.get("hidden_states", args[0] if args else None))
        if torch.is_tensor(given) and given.is_floating_point():
            raise _ReachedDecoder(given)

    watched = [model.get_decoder(), *(layer for index, layer in decoder_layers(model).items() if index == 0)]
    hooks = [module.register_forward_pre_hook(stop, with_kwargs=True) for module in watched]
    try:
        with torch.no_grad(), unmixed(model):
            model(**encoded.inputs)
    except _ReachedDecoder as reached:
        return reached.embeddings[0], encoded.image_tokens[0][-1].to(reached.embeddings.device)
    finally:
        for hook in hooks:
            hook.remove()
    raise ValueError("the language model is not given embeddings")


@contextlib.contextmanager
def unmixed(model: Any) -> Iterator[None]:
    """The model with nothing passing between patches outside of its language decoder: attention gives zeros, and convolutions
    that overlap see their own cell alone.
    """
    decoder = {id(part) for layer in decoder_layers(model).values() for part in layer.modules()}
    hooks = [
        module.register_forward_hook(lambda _, __, output: _zeros(output))
        for module in model.modules()
        if _attends(module) and id(module) not in decoder and not any(map(_attends, list(module.modules())[1:]))
    ]
    try:
        with own_cells([module for module in model.modules() if id(module) not in decoder]):
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def own_cells(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Those of some modules that are convolutions and overlap without their weights on what lies in the cells of others."""
    kept = [(module, module.weight.data) for module in modules if isinstance(module, nn.Conv2d) and _overlaps(module)]
    try:
        for module, _ in kept:
            module.weight.data = _own_cell(module)
        yield
    finally:
        for module, weight in kept:
            module.weight.data = weight


def _overlaps(module: nn.Conv2d) -> bool:
    return any(size > step for size, step in zip(module.kernel_size, module.stride, strict=True))


def _own_cell(module: nn.Conv2d) -> Tensor:
    """A convolution's weights without those on pixels of other outputs: of each axis, as many as a step, behind the padding.

    Output i of an axis sees inputs i * step - padding to i * step - padding + size - 1, its own cell begins at i * step.
    """
    weight = module.weight.data
    axes = zip(module.kernel_size, module.stride, _padding(module), strict=True)
    starts = [(max(min(padding, size - step), 0), step) for size, step, padding in axes]
    own: tuple[Any, ...] = (..., *(slice(start, start + step) for start, step in starts))
    cut = torch.zeros_like(weight)
    cut[own] = weight[own]
    return cut


def _padding(module: nn.Conv2d) -> tuple[int, ...]:
    """In front of each axis."""
    if isinstance(module.padding, str):
        return tuple((size - 1) // 2 if module.padding == "same" else 0 for size in module.kernel_size)
    return module.padding


def _attends(module: nn.Module) -> bool:
    return "Attention" in type(module).__name__


def _zeros(output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)
