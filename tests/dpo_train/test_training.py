"""The loop as a whole, on a tiny model."""

from __future__ import annotations

import json

import pytest
import torch
from mia_augment.errors import ConfigError, DataError, ModelError
from mia_dpo_train import LoraSettings, TrainSettings, train
from safetensors.torch import load_file

SETTINGS = TrainSettings(
    lora=LoraSettings(r=4, alpha=8, dropout=0.2),
    epochs=2,
    per_device_batch_size=2,
    accumulation=2,
    learning_rate=1e-2,
    gradient_checkpointing=False,
    checkpoint_every=2,
    trackers=[],
)


@pytest.fixture
def run(build, pairs, open_picture):
    def run(out, family="llava", pairs=pairs, held_out=(), prepare=None, **changes):
        model, processor = build(family)
        if prepare:
            prepare(model)
        settings = TrainSettings.model_validate({**SETTINGS.model_dump(), **changes})
        result = train(
            pairs, model, processor, settings, out, open_image=open_picture, model_id="tiny", held_out=held_out
        )  # fmt: skip
        return result, model

    return run


def lines(out, part="train"):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["part"] == part]


def weights(result):
    return {path.name: path.read_bytes() for path in result.folder.iterdir()}


def test_loss_falls_and_margin_grows(run, tmp_path):
    result, _ = run(tmp_path, epochs=6)
    rows = lines(tmp_path)
    assert result.steps == len(rows) == 18
    assert rows[0]["dpo"] == pytest.approx(0.6931472, abs=1e-3)  # log 2: policy and reference start equal
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["margin"] > 0.5
    assert rows[-1]["accuracy"] == 1.0


def test_adapter_lies_on_the_language_model_only_and_loads_with_peft(run, build, tmp_path):
    from peft import PeftModel

    result, trained = run(tmp_path)
    names = list(load_file(result.folder / "adapter_model.safetensors"))
    assert names
    assert all(".language_model." in name for name in names)
    model, _ = build("llava")
    loaded = PeftModel.from_pretrained(model, str(result.folder))
    assert loaded.peft_config["default"].base_model_name_or_path == "tiny"
    first = dict(trained.named_parameters())
    for name, parameter in loaded.base_model.model.named_parameters():
        assert torch.equal(parameter, first[name])


RUNNING = {
    "loss": [{"name": "sigmoid", "weight": 0.8}, {"name": "bco_pair", "weight": 0.2}, {"name": "sft", "weight": 1.0}],
    "bco_shift": "running",
}
"""Several losses, one of which looks back at all rewards before."""


@pytest.mark.parametrize("changes", [{}, RUNNING], ids=["sigmoid", "running"])
def test_interrupted_anywhere_gives_the_same_bytes(run, tmp_path, monkeypatch, changes):
    """Stopped after each step in turn (mid-epoch, at an epoch's boundary, before the adapter is written)."""
    from mia_dpo_train.training import loop

    whole, _ = run(tmp_path / "whole", **changes)
    step = loop.optimizer_step
    for stop in (1, 3, 4, 6):

        def dying(training, planned, stream, stop=stop):
            result = step(training, planned, stream)
            if planned.number + 1 == stop:
                raise KeyboardInterrupt
            return result

        out = tmp_path / f"stopped-{stop}"
        monkeypatch.setattr(loop, "optimizer_step", dying)
        with pytest.raises(KeyboardInterrupt):
            run(out, **changes)
        monkeypatch.setattr(loop, "optimizer_step", step)
        resumed, _ = run(out, **changes)
        assert weights(resumed) == weights(whole)
        assert [row["step"] for row in lines(out)] == [1, 2, 3, 4, 5, 6]
        assert [row["loss"] for row in lines(out)] == [row["loss"] for row in lines(tmp_path / "whole")]


def test_workers_and_caching_change_nothing(run, tmp_path):
    with_workers, _ = run(tmp_path / "workers", workers=2)
    without_cache, _ = run(tmp_path / "plain", image_cache_mb=0)
    assert weights(with_workers) == weights(without_cache)


def test_full_fine_tuning_leaves_vision_and_projector(run, build, tmp_path):
    result, _ = run(tmp_path, tuning="full", lora=LoraSettings().model_dump(), learning_rate=1e-3)
    from transformers import AutoModelForImageTextToText

    before, _ = build("llava")
    after = dict(AutoModelForImageTextToText.from_pretrained(result.folder).named_parameters())
    changed = {name for name, parameter in before.named_parameters() if not torch.equal(parameter, after[name])}
    assert result.folder.name == "model"
    assert changed
    assert all(".language_model." in name or "lm_head" in name for name in changed)


def test_online_reference_gives_the_same_training(run, tmp_path):
    run(tmp_path / "stored")
    run(tmp_path / "online", reference="online")
    assert not (tmp_path / "online" / "reference.json").exists()
    first, second = lines(tmp_path / "stored")[-1], lines(tmp_path / "online")[-1]
    assert first["loss"] == pytest.approx(second["loss"], abs=1e-4)


def test_online_reference_of_full_fine_tuning_is_the_model_before(run, tmp_path):
    shared = {"tuning": "full", "lora": LoraSettings().model_dump(), "learning_rate": 1e-3}
    run(tmp_path / "stored", **shared)
    run(tmp_path / "online", reference="online", **shared)
    for first, second in zip(lines(tmp_path / "stored"), lines(tmp_path / "online"), strict=True):
        assert first["margin"] == pytest.approx(second["margin"], abs=1e-4)
    assert abs(lines(tmp_path / "online")[-1]["margin"]) > 0.01


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_in_bf16_is_trained_in_fp32_and_written_in_bf16(run, tmp_path, precision):
    shared = {"tuning": "full", "lora": LoraSettings().model_dump(), "learning_rate": 1e-5, "precision": precision}
    result, trained = run(tmp_path, prepare=lambda model: model.to(torch.bfloat16), **shared)
    assert trained.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.float32
    written = load_file(result.folder / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    # A step of 1e-5 is less than half of a bf16 weight's last digit here: in bf16 it would have been lost.
    weight = trained.model.language_model.layers[0].mlp.up_proj.weight
    assert not torch.equal(weight, weight.bfloat16().float())


@pytest.mark.parametrize(
    ("family", "name"), [("llava", "multi_modal_projector"), ("qwen2_5_vl", "visual.merger"), ("qwen3_vl", "merger")]
)
def test_the_projector_is_trained_and_saved_when_asked(run, build, tmp_path, family, name):
    from peft import PeftModel

    result, _ = run(tmp_path, family=family, train_projector=True)
    before, _ = build(family)
    adapted, _ = build(family)
    after = dict(PeftModel.from_pretrained(adapted, str(result.folder)).merge_and_unload().named_parameters())
    changed = {key for key, value in before.named_parameters() if not torch.equal(value, after[key])}
    assert any(name in key for key in changed)
    assert all(name in key or ".language_model." in key for key in changed)


def test_the_vision_tower_gets_adapters_when_asked(run, tmp_path):
    result, _ = run(tmp_path, train_vision_tower=True)
    names = list(load_file(result.folder / "adapter_model.safetensors"))
    assert any(".vision_tower." in name for name in names)
    assert any(".language_model." in name for name in names)
    assert not any("multi_modal_projector" in name for name in names)


@pytest.mark.parametrize("changes", [{"gamma": 1.0}, {"gamma": 1.0, "nll": "token_mean"}, RUNNING])
def test_accumulation_equals_one_large_batch(run, tmp_path, changes):
    """Also in the short last step of an epoch (9 pairs in steps of 4)."""
    shared = {**changes, "lora": {"r": 4, "alpha": 8}, "group_by_length": False}
    run(tmp_path / "one", per_device_batch_size=4, accumulation=1, **shared)
    run(tmp_path / "many", per_device_batch_size=1, accumulation=4, **shared)
    for first, second in zip(lines(tmp_path / "one"), lines(tmp_path / "many"), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], abs=2e-6, rel=1e-6)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-4)


def test_the_running_mean_reward_shifts_the_loss_of_later_steps(run, tmp_path):
    """The rewards of every step before it, from the metrics that it wrote; 4, 4 and 1 pairs a step."""
    run(tmp_path, **{**RUNNING, "loss": [{"name": "bco_pair"}]}, accumulation=2)
    rows = lines(tmp_path)
    sizes = [4, 4, 1] * 2
    rewards = [(row["chosen_reward"] + row["rejected_reward"]) * size for row, size in zip(rows, sizes, strict=True)]
    folder = sorted((tmp_path / "checkpoints").iterdir())[-1]
    progressed = json.loads((folder / "state.json").read_text())["progressed"]
    assert progressed["reward_total"] == pytest.approx(sum(rewards), rel=1e-12)
    assert progressed["reward_count"] == 2 * sum(sizes)
    run(tmp_path / "plain", **{**RUNNING, "loss": [{"name": "bco_pair"}], "bco_shift": "none"}, accumulation=2)
    both = zip(rows, lines(tmp_path / "plain"), strict=True)
    differences = [abs(one["dpo"] - other["dpo"]) for one, other in both]
    assert differences[:2] == pytest.approx([0, 0], abs=1e-6)  # policy and reference are still one in the first step
    assert differences[2] > 1e-5


def test_the_first_step_follows_warm_up_and_clipping(run, tmp_path):
    """AdamW's first step moves a weight by the learning rate, whatever its gradient, and keeps (1 - 0.9) of that gradient."""
    run(tmp_path, max_steps=4, warmup=0.5, max_grad_norm=0.01, checkpoint_every=1, keep_checkpoints=4)
    first = tmp_path / "checkpoints" / "step-00000001"
    moved = [weight.abs().max() for name, weight in load_file(first / "weights.safetensors").items() if "lora_B" in name]
    assert float(max(moved)) == pytest.approx(0.5 * 1e-2, rel=1e-3)  # the first of two rising steps
    kept = [value.flatten() for name, value in load_file(first / "optimizer.safetensors").items() if name.endswith("/exp_avg")]
    assert float(torch.cat(kept).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_weight_decay_shrinks_weights(run, tmp_path):
    """In the first step lora_B is 0, so lora_A has no gradient: decay alone moves it, by learning rate times decay."""
    found = []
    for decay in (0.0, 0.5):
        out = tmp_path / str(decay)
        run(out, max_steps=1, warmup=0.0, weight_decay=decay, checkpoint_every=1)
        weights = load_file(out / "checkpoints" / "step-00000001" / "weights.safetensors")
        found.append(torch.cat([value.flatten() for name, value in sorted(weights.items()) if "lora_A" in name]))
    torch.testing.assert_close(found[1], found[0] * (1 - 1e-2 * 0.5), rtol=1e-6, atol=0.0)


def test_weight_decay_is_for_matrices():
    from mia_dpo_train.training.setup import decay_groups

    matrix, vector = (torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2,)))
    groups = decay_groups({"matrix": matrix, "vector": vector}, 0.1)
    assert [(group["params"], group["weight_decay"]) for group in groups] == [([matrix], 0.1), ([vector], 0.0)]


def test_the_reference_knows_no_dropout(run, tmp_path):
    def dropping(model):
        for layer in model.model.language_model.layers:
            layer.self_attn.attention_dropout = 0.5

    run(tmp_path / "without", max_steps=1)
    run(tmp_path / "with", max_steps=1, prepare=dropping)
    first, second = (json.loads((tmp_path / name / "reference.json").read_text()) for name in ("without", "with"))
    assert first["logps"] == second["logps"]
    assert lines(tmp_path / "without")[0]["chosen_logp"] != pytest.approx(lines(tmp_path / "with")[0]["chosen_logp"], abs=0.1)


def test_every_pass_drops_something_else(run, tmp_path, monkeypatch):
    from mia_dpo_train.training import optimizer_step

    seeds = []
    monkeypatch.setattr(optimizer_step.torch, "manual_seed", seeds.append)
    monkeypatch.setattr(optimizer_step, "pass_seed", lambda *of: of)
    run(tmp_path)
    passes = [seed for seed in seeds if isinstance(seed, tuple)]
    assert len(passes) == len(set(passes)) == 10  # 9 pairs by two, twice


def test_gradient_checkpointing_changes_nothing(run, tmp_path):
    without, _ = run(tmp_path / "without")
    with_it, _ = run(tmp_path / "with", gradient_checkpointing=True)
    assert weights(without) == weights(with_it)


def test_tensorboard_gets_what_the_metrics_file_gets(run, pairs, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is an optional dependency")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, pairs=pairs[:6], held_out=pairs[6:], trackers="auto")
    events = EventAccumulator(str(tmp_path / "mia"))
    events.Reload()
    for part in ("train", "held_out"):
        shown = {event.step: event.value for event in events.Scalars(f"{part}/loss")}
        assert shown == pytest.approx({row["step"]: row["loss"] for row in lines(tmp_path, part)})


def test_wandb_writes_its_run_beside_the_adapter(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is an optional dependency")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(tmp_path, trackers=["wandb"])
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_held_out_pairs_are_measured_and_not_trained_on(run, pairs, tmp_path):
    weighted = {"pairs": pairs[:6], "dpo_alpha": 2.0, "gamma": 0.3}
    result, _ = run(tmp_path / "a", held_out=pairs[6:], evaluate_every=1, **weighted)
    alone, _ = run(tmp_path / "b", **weighted)
    assert weights(result) == weights(alone)
    rows = lines(tmp_path / "a", "held_out")
    assert [row["step"] for row in rows] == list(range(1, result.steps + 1))
    assert result.held_out_metrics["dpo"] == rows[-1]["dpo"] != rows[0]["dpo"]
    assert rows[-1]["loss"] == pytest.approx(2.0 * rows[-1]["dpo"] + 0.3 * rows[-1]["nll"])


def test_a_bad_picture_costs_its_pair_only(run, pairs, tmp_path, open_picture, build):
    def opener(name):
        if name == pairs[4].images[0]:
            raise DataError(f"image {name!r}: cut off")
        return open_picture(name)

    model, processor = build("llava")
    bad = {pair.id for pair in pairs if pairs[4].images[0] in pair.images}
    result = train(pairs, model, processor, SETTINGS, tmp_path, open_image=opener, model_id="tiny")
    assert {skipped.id for skipped in result.skipped} == bad
    assert result.pairs == 9 - len(bad)
    assert "cut off" in (tmp_path / "skipped.jsonl").read_text()


def test_too_long_pairs_are_refused_with_their_length_or_skipped(run, tmp_path):
    with pytest.raises(DataError, match=r"longer than 60 tokens .*pair-002 \(\d+\).*max_length"):
        run(tmp_path / "refused", max_length=60)
    result, _ = run(tmp_path / "skipped", max_length=60, too_long="skip")
    assert 0 < result.pairs < 9
    assert result.pairs + len(result.skipped) == 9


def test_nan_stops_with_the_pairs_named_and_the_checkpoint_kept(run, tmp_path, monkeypatch):
    from mia_dpo_train.logps.routes import PairLogps

    compute = PairLogps.compute
    monkeypatch.setattr(
        PairLogps,
        "compute",
        lambda self, batch: compute(self, batch) * (float("nan") if self.training and "pair-007" in batch.ids else 1.0),
    )
    with pytest.raises(DataError, match=r"step \d+: the loss is NaN or inf; its pairs are .*pair-007") as caught:
        run(tmp_path, checkpoint_every=1, seed=1)
    step = int(str(caught.value).split("step ")[1].split(":")[0])
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept[-1:] == ([f"step-{step - 1:08d}"] if step > 1 else [])
    assert not (tmp_path / "adapter").exists()


def test_out_of_memory_says_what_to_change(run, tmp_path, monkeypatch):
    from mia_dpo_train.logps.routes import PairLogps

    def exhausted(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(PairLogps, "compute", exhausted)
    with pytest.raises(ModelError, match=r"per_device_batch_size: 1 with accumulation: 4.*gradient_checkpointing: true"):
        run(tmp_path)


def test_checkpoints_are_pruned_and_damaged_ones_passed_over(run, tmp_path):
    whole, _ = run(tmp_path / "whole", checkpoint_every=1, keep_checkpoints=3)
    folders = sorted((tmp_path / "whole" / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == ["step-00000004", "step-00000005", "step-00000006"]
    before = weights(whole)
    with (folders[-1] / "weights.safetensors").open("r+b") as file:
        file.truncate(100)
    again, _ = run(tmp_path / "whole", checkpoint_every=1, keep_checkpoints=3)
    assert weights(again) == before
    assert len(lines(tmp_path / "whole")) == 6


def test_other_settings_start_anew(run, tmp_path):
    run(tmp_path, learning_rate=1e-2)
    changed, _ = run(tmp_path, learning_rate=2e-2)
    fresh, _ = run(tmp_path / "fresh", learning_rate=2e-2)
    assert weights(changed) == weights(fresh)


def test_a_full_disk_is_an_error_that_keeps_the_run(run, tmp_path, monkeypatch):
    from mia_dpo_train.training import checkpoints

    save, calls = checkpoints.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(DataError, match="disk is full"):
        run(tmp_path)
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["step-00000002"]


def test_the_key_of_the_reference_tells_all_that_it_depends_on(build, tmp_path):
    from types import SimpleNamespace

    from mia_dpo_train.logps.reference import ReferenceSource

    def key(processor, **changes):
        given = {"weights": "a", "route": "packed", "dtype": torch.float32, "mixed_precision": "no", "attention": "sdpa"}
        told = SimpleNamespace(**{**given, **changes})
        told.logps = told.accelerator = told
        return ReferenceSource(told, processor, SETTINGS, tmp_path, pad=0).key

    def changed(processor, **changes):
        return {name for name, value in key(processor, **changes).items() if value != before[name]}

    _, processor = build("llava")
    before = key(processor)
    assert changed(processor) == set()
    assert changed(processor, weights="b") == {"model"}
    assert changed(processor, route="plain") == {"route"}
    assert changed(processor, dtype=torch.bfloat16) == changed(processor, mixed_precision="bf16") == {"precision"}
    assert changed(processor, attention="eager") == {"attention"}
    processor.chat_template += " "
    assert changed(processor) == {"template"}
    processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    assert changed(processor) == {"template", "image_processor"}


def test_stale_reference_is_computed_again(run, pairs, tmp_path, caplog):
    run(tmp_path)
    stored = json.loads((tmp_path / "reference.json").read_text())

    def other_model(model):
        model.lm_head.weight.data.mul_(1.5)

    with caplog.at_level("WARNING"):
        run(tmp_path, prepare=other_model)
    assert "stale (changed: model)" in caplog.text
    renewed = json.loads((tmp_path / "reference.json").read_text())
    assert renewed["logps"].keys() == stored["logps"].keys()
    assert renewed["logps"] != stored["logps"]
    reworded = [pair.model_copy(update={"chosen": "blue ."}) for pair in pairs]
    with caplog.at_level("WARNING"):
        run(tmp_path, prepare=other_model, pairs=reworded)
    assert "stale (changed: tokens)" in caplog.text


def test_more_processes_than_the_checkpoint_had_are_refused(run, tmp_path):
    run(tmp_path)
    for state in (tmp_path / "checkpoints").glob("*/state.json"):
        state.write_text(state.read_text().replace('"processes": 1', '"processes": 4'))
    with pytest.raises(ConfigError, match="run with 4 to go on"):
        run(tmp_path)


def test_unknown_lora_target_names_those_that_exist(run, tmp_path):
    with pytest.raises(ConfigError, match=r"wq not in the language model.*q_proj"):
        run(tmp_path, lora={"targets": ["wq"]})


def test_a_text_model_is_refused(pairs, open_picture, build, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    _, processor = build("llava")
    model = LlamaForCausalLM(LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=32))
    with pytest.raises(ModelError, match="expected a vision-language model"):
        train(pairs, model, processor, SETTINGS, tmp_path, open_image=open_picture, model_id="tiny")


def test_a_model_that_deepspeed_has_in_parts_is_refused(run, tmp_path):
    with pytest.raises(ModelError, match=r"loaded in parts by DeepSpeed.*zero3_init_flag"):
        run(tmp_path, prepare=lambda model: setattr(model.lm_head.weight, "ds_id", 0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": "qlora"}, "bitsandbytes"),
        ({"attn_implementation": "flash_attention_2"}, "flash-attn"),
        ({"trackers": ["wandb"]}, "wandb"),
    ],
)
def test_missing_packages_are_named_before_a_model_is_needed(changes, message, monkeypatch):
    import importlib.util

    from mia_dpo_train import check_environment

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        check_environment(TrainSettings.model_validate(changes))
