"""Summed log-probs of the answers of a pair, three ways that agree: packed, kv and plain.

- packed: [prompt][chosen][rejected].. in one sequence; vision tower and prompt run once per pair.
- kv: the prompt runs once, all answers continue on its repeated cache.
- plain: [prompt][chosen] and [prompt][rejected] as sequences of their own, as textbooks do.

Each maps a `PairBatch` to (answers, rows) in nats, fp32: first the chosen answers, then the rejected ones; 0 where a row has
no such answer. Logits are computed only where they predict a token of a response, and never too many at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from mia_augment import before_the_head, behind_start, text_config
from torch import Tensor, nn

from mia_dpo_train.data.encode import PairBatch
from mia_dpo_train.logps.caches import repeat_cache
from mia_dpo_train.logps.packing import answer_positions, packed_masks, packed_positions, prompt_positions
from mia_dpo_train.logps.target_logps import few_logits, outputs_of, states_at, summed_logps
from mia_dpo_train.models.facts import ModelFacts, base_model
from mia_dpo_train.settings import Route


class PairLogps(nn.Module):
    """A model as a function from pairs to the log-probs of their answers; this is what gets wrapped for distribution."""

    def __init__(self, model: nn.Module, facts: ModelFacts, route: Route) -> None:
        super().__init__()
        self.model, self.facts, self.route = model, facts, route
        # What Accelerate reads of a model that it shards. It refuses classes that do not occur in the model.
        self.config = base_model(model).config
        classes = {type(module).__name__ for module in model.modules()}
        self._no_split_modules = sorted(classes & set(getattr(base_model(model), "_no_split_modules", None) or []))

    def forward(self, batch: PairBatch) -> Tensor:
        """Log-probs of the answers of each pair: (answers, pairs), as `PairBatch.by_pair` orders them."""
        return self.compute(batch)

    def compute(self, batch: PairBatch) -> Tensor:
        """The same, past whatever a wrapper makes of `forward`."""
        return batch.by_pair(ROUTES[self.route](self.model, self.facts, batch))


def packed_logps(model: nn.Module, facts: ModelFacts, batch: PairBatch) -> Tensor:
    """One forward pass per row over the shared prefix and all answers: (answers, rows)."""
    positions = packed_positions(model, facts, batch)
    masks = packed_masks(facts, batch, compute_dtype(model))
    start = batch.prompt.shape[1]
    tokens = torch.cat([batch.prompt, *(answer for answer, _ in batch.answers)], dim=1)
    keywords: dict[str, Any] = dict(batch.vision)
    if facts.mrope:
        keywords |= {name: F.pad(types, (0, tokens.shape[1] - start)) for name, types in token_inputs(facts, batch).items()}
    predicting = torch.arange(start - 1, tokens.shape[1] - 1, device=tokens.device)
    keywords |= {"input_ids": tokens, "attention_mask": masks, "position_ids": positions if facts.mrope else positions[0]}
    states, head = states_at(model, predicting, keywords)
    first, place, logps = states[:, :1], 0, []
    for answer, mask in batch.answers:
        width = answer.shape[1]  # the prompt's last token predicts the first one of every answer
        logps.append(summed_logps(torch.cat([first, states[:, place + 1 : place + width]], dim=1), answer, mask, head))
        place += width
    return torch.stack(logps)


def token_inputs(facts: ModelFacts, batch: PairBatch) -> dict[str, Tensor]:
    """What the model takes of what the processor says of every prompt token: (pairs, prompt) each."""
    return {name: types for name, types in batch.types.items() if name in facts.takes}


def compute_dtype(model: nn.Module) -> torch.dtype:
    """Type of queries and keys: autocast's, or that of the weights."""
    weight: Tensor = base_model(model).get_input_embeddings().weight
    device = weight.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else weight.dtype


def kv_logps(model: nn.Module, facts: ModelFacts, batch: PairBatch) -> Tensor:
    """The prompt once, then all answers on its cache: (answers, rows). Not under checkpointing, which drops the cache."""
    from transformers import DynamicCache

    positions, following = prompt_positions(model, facts, batch)
    rows, count = batch.prompt.shape[0], len(batch.answers)
    answers, masks = (part.transpose(0, 1).flatten(0, 1) for part in _stacked(batch))
    prompt: dict[str, Any] = {**batch.vision, **token_inputs(facts, batch)}
    prompt |= {"input_ids": batch.prompt, "attention_mask": batch.prompt_mask.long()}
    prompt |= {"position_ids": positions if facts.mrope else positions[0]}

    def unread() -> dict[str, Any]:  # a cache anew for each run over the prompt
        return {"past_key_values": DynamicCache(config=text_config(model)), "use_cache": True, "logits_to_keep": 1}

    found = None if few_logits(model, answers.numel()) else before_the_head(model, prompt, **unread())
    outputs, head = found or (model(**prompt, **unread()), None)
    cache = outputs.past_key_values
    if cache is None or cache.get_seq_length() == 0:
        raise RuntimeError("the model kept no cache (gradient checkpointing drops it)")
    repeat_cache(cache, count)
    later = answer_positions(following.repeat_interleave(count), answers.shape[1], positions.shape[0])
    behind = {
        "input_ids": answers,
        "attention_mask": torch.cat([batch.prompt_mask.repeat_interleave(count, 0), masks], dim=1).long(),
        "position_ids": later if facts.mrope else later[0],
    }
    continued, _ = outputs_of(model, behind, few=head is None, past_key_values=cache, use_cache=True)
    first = outputs.logits[:, -1:].repeat_interleave(count, 0)
    states = torch.cat([first, continued.logits[:, :-1]], dim=1)
    return summed_logps(states, answers, masks, head).view(rows, count).T


def _stacked(batch: PairBatch) -> tuple[Tensor, Tensor]:
    """All answers at one width, (answers, rows, answer), and their mask."""
    width = max(answer.shape[1] for answer, _ in batch.answers)

    def padded(parts: Iterable[Tensor]) -> Tensor:
        return torch.stack([F.pad(part, (0, width - part.shape[1])) for part in parts])

    return padded(answer for answer, _ in batch.answers), padded(mask for _, mask in batch.answers)


def plain_logps(model: nn.Module, facts: ModelFacts, batch: PairBatch) -> Tensor:
    """Every answer behind its own copy of prompt and images, padded on the right: (answers, rows).

    One pass for the chosen answers and one for each rejected one: a processor's outputs for a batch cannot always be put side
    by side with themselves (`mia_dpo_train.joining`).
    """
    side = _decoded_side if facts.encodes else _plain_side
    return torch.stack([side(model, facts, batch, answers, real) for answers, real in batch.answers])


def _plain_side(model: nn.Module, facts: ModelFacts, batch: PairBatch, answers: Tensor, real: Tensor) -> Tensor:
    """Log-probs of one answer a row, (rows,)."""
    tokens = torch.cat([batch.prompt, answers], dim=1)
    mask = torch.cat([batch.prompt_mask, real], dim=1)
    is_answer = F.pad(real, (batch.prompt.shape[1], 0))
    # A stable sort moves the padding of every row to its right end and keeps the order of its tokens.
    order = torch.sort((~mask).to(torch.int8), dim=1, stable=True).indices
    width = int(mask.sum(1).max())
    tokens, mask, is_answer = (part.gather(1, order)[:, :width] for part in (tokens, mask, is_answer))
    keywords: dict[str, Any] = dict(batch.vision)
    for name, types in token_inputs(facts, batch).items():
        whole = _lengthened(types, answers.shape[1], facts.response_type)
        keywords[name] = whole.gather(1, order.view(*order.shape, *[1] * (whole.dim() - 2)).expand_as(whole))[:, :width]
    start = int(batch.prompt_mask.sum(1).min())
    predicting = torch.arange(start - 1, width - 1, device=tokens.device)
    keywords |= {"input_ids": tokens, "attention_mask": mask.long()}
    states, head = states_at(model, predicting, keywords)
    return summed_logps(states, tokens[:, start:], is_answer[:, start:], head)


def _lengthened(types: Tensor, width: int, value: int) -> Tensor:
    """What is said of every prompt token, (rows, prompt, ..), and behind it of an answer's: a number, or that it sees the
    pictures that the prompt's last token sees.
    """
    if types.dim() == 2:
        return F.pad(types, (0, width), value=value)
    return torch.cat([types, types[:, -1:].expand(-1, width, *types.shape[2:])], dim=1)


def _decoded_side(model: nn.Module, facts: ModelFacts, batch: PairBatch, answers: Tensor, real: Tensor) -> Tensor:
    """Log-probs of one answer a row by the decoder, with the prompt in the encoder, (rows,)."""
    keywords: dict[str, Any] = {**batch.vision, **token_inputs(facts, batch)}
    if "input_ids" in facts.takes:
        keywords |= {"input_ids": batch.prompt, "attention_mask": batch.prompt_mask.long()}
    keywords["decoder_input_ids"] = behind_start(base_model(model), answers)
    outputs, head = outputs_of(model, keywords, few=few_logits(model, answers.numel()), use_cache=False)
    return summed_logps(outputs.logits, answers, real, head)


ROUTES = {"packed": packed_logps, "kv": kv_logps, "plain": plain_logps}
