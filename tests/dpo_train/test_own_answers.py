"""The start-up check: answers that the model gave itself are worded by the template as the model said them."""

from __future__ import annotations

import logging
import math

import pytest
import tiny_models
import torch
from mia_augment.errors import ModelError
from mia_augment.records import Scores
from mia_dpo_train import TrainSettings, train
from mia_dpo_train.data.encode import PairEncoder, collate
from mia_dpo_train.logps.own_answers import check_own_answers
from mia_dpo_train.logps.routes import plain_logps
from mia_dpo_train.models.facts import model_facts

OTHER_TURN = "{% if m['role'] == 'assistant' %}a dog {% endif %}"
"""Words that no model of these tests says by itself."""
CPU = torch.device("cpu")


def say_greedily(model, encoder, pair, count=4):
    """The pair with the model's own greedy tokens as the rejected answer, and their mean log-prob."""
    ids: list[int] = []
    logps = []
    encoded = encoder(pair)
    with torch.no_grad():
        for _ in range(count):
            whole = torch.cat([encoded.prompt, torch.tensor(ids, dtype=torch.long)])[None]
            logits = model(input_ids=whole, attention_mask=torch.ones_like(whole), **encoded.vision).logits[0, -1]
            spoken = encoder.tokenizer.convert_tokens_to_ids([word for word in tiny_models.WORDS if word.isalnum()])
            ids.append(spoken[int(logits[spoken].argmax())])
            logps.append(float(logits.log_softmax(-1)[ids[-1]]))
    text = encoder.tokenizer.decode(ids[:-1], skip_special_tokens=True)
    perplexity = math.exp(-sum(logps) / count)
    return pair.model_copy(update={"rejected": text, "rejected_ids": ids, "scores": Scores(perplexity=perplexity)})


@pytest.fixture
def own(build, make_pair, open_picture):
    """Model, encoder and pairs whose answers the model gave itself, each ended by its last token."""
    model, processor = build("llava")
    first = say_greedily(model, PairEncoder(processor, open_picture), make_pair(1, 2))
    stop = first.rejected_ids[-1]
    assert stop not in first.rejected_ids[:-1]
    pairs = [first, first.model_copy(update={"id": "pair-again"})]
    return model, PairEncoder(processor, open_picture, [stop]), pairs


def check(model, encoder, pairs):
    calls = []

    def compute(batch):
        calls.append(batch)
        return plain_logps(model, model_facts(model), batch)

    check_own_answers(pairs, encoder, compute, CPU, 0)
    return len(calls)


def test_answers_worded_as_they_were_said_pass_and_agree_with_scoring(own, caplog):
    model, encoder, pairs = own
    with caplog.at_level(logging.INFO):
        assert check(model, encoder, pairs) == len(pairs)
    assert f"own answers: {len(pairs)} checked, mean log-probs as scored within 0.000 nats" in caplog.text


def test_another_wording_is_refused_with_both_as_tokens(own):
    model, encoder, pairs = own
    encoder.processor.chat_template = encoder.processor.chat_template.replace("{% for p", OTHER_TURN + "{% for p")
    said = "".join(f"'{token}' " for token in encoder.tokenizer.convert_ids_to_tokens(pairs[0].rejected_ids)).strip()
    with pytest.raises(ModelError, match="the chat template's answers are not what the model says") as refused:
        check(model, encoder, pairs[:1])
    assert f"(scoring saw {-4 * math.log(pairs[0].scores.perplexity):.2f}): {said};" in str(refused.value)
    assert f"nats: 'a' 'dog' {said}." in str(refused.value)


def test_an_answer_of_another_model_is_a_warning(own, caplog):
    model, encoder, pairs = own
    other = [pair.model_copy(update={"scores": Scores(perplexity=pair.scores.perplexity * 2)}) for pair in pairs]
    check(model, encoder, other)
    assert "another mean log-prob than when they were scored (by up to 0.69 nats a token)" in caplog.text


def test_noise_on_the_view_of_grids_is_no_difference(own, caplog):
    model, encoder, pairs = own
    update = {"format": "grid", "scores": Scores(perplexity=pairs[0].scores.perplexity * 9)}
    check(model, encoder, [pair.model_copy(update=update) for pair in pairs])
    assert not caplog.records


def test_tokens_that_no_text_can_give_are_not_looked_at(own):
    """What random or broken models emit: the same words in other pieces, or ids that the tokenizer does not know."""
    model, encoder, pairs = own
    odd = [pair.model_copy(update={"rejected_ids": [250, *pair.rejected_ids]}) for pair in pairs]
    assert check(model, encoder, odd) == 0


def test_answers_cut_off_or_of_other_models_are_not_looked_at(own, open_picture):
    model, encoder, pairs = own
    unknown = [pair.model_copy(update={"rejected_ids": None}) for pair in pairs]
    changed = [pair.model_copy(update={"rejected": "a cat on the left"}) for pair in pairs]
    assert check(model, encoder, unknown + changed) == 0
    assert check(model, PairEncoder(encoder.processor, open_picture), pairs) == 0  # none of their tokens ends a turn


@pytest.mark.parametrize("name", ["unk_token", "bos_token", "pad_token"])
def test_an_answer_that_was_cut_off_at_a_special_token_is_not_looked_at(own, name):
    """A cut-off answer may stop at any token; only one that can end a turn tells that the answer is whole."""
    model, encoder, pairs = own
    tokenizer = encoder.tokenizer
    setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(pairs[0].rejected_ids[0]))
    said = pairs[0].rejected_ids[1:3]
    emitted = {"rejected": tokenizer.decode(said), "rejected_ids": [*said, getattr(tokenizer, f"{name}_id")]}
    cut = [pair.model_copy(update=emitted) for pair in pairs]
    assert check(model, encoder, cut) == 0


def test_training_does_not_begin_with_another_wording(own, open_picture, tmp_path):
    model, encoder, pairs = own
    model.generation_config.eos_token_id = list(encoder.stops)
    encoder.processor.chat_template = encoder.processor.chat_template.replace("{% for p", OTHER_TURN + "{% for p")
    with pytest.raises(ModelError, match="the chat template's answers are not what the model says"):
        train(pairs, model, encoder.processor, TrainSettings(), tmp_path, open_image=open_picture, model_id="tiny")


def test_the_rejected_side_is_the_emitted_tokens(own):
    _, encoder, pairs = own
    encoded = encoder(pairs[0])
    assert encoded.rejected.tolist() == pairs[0].rejected_ids
    assert collate([encoded]).lengths[1].tolist() == [4]
    other = encoder(pairs[0].model_copy(update={"rejected": "a cat"}))
    assert encoder.tokenizer.convert_ids_to_tokens(other.rejected)[:2] == ["a", "cat"]


def test_a_chosen_answer_of_its_own_is_the_tokens_that_it_emitted(own):
    model, encoder, pairs = own
    said = pairs[0]
    swapped = said.model_copy(
        update={"chosen": said.rejected, "chosen_ids": said.rejected_ids, "rejected": said.chosen, "rejected_ids": None}
    )
    assert encoder(swapped).chosen.tolist() == said.rejected_ids
    # changed since, the text counts
    changed = encoder(swapped.model_copy(update={"chosen": "a cat"}))
    assert changed.chosen.tolist() == encoder(said.model_copy(update={"chosen": "a cat"})).chosen.tolist()
    # the check measures the rejected answer in both wordings, whatever tokens the chosen one has
    other = [250, *(said.rejected_ids or [])]
    both = [pair.model_copy(update={"chosen_ids": other}) for pair in pairs]
    assert check(model, encoder, both) == check(model, encoder, pairs)
