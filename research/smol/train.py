"""Train the model in LLaVA's steps: `uv run --group smol python research/smol/train.py` (weights in research/smol/work).

0. `tower`: vision tower and projector, without the language model, towards its word embeddings (tower.py);
1. `align`: the projector, with the language model frozen, on captions;
2. `tune`: projector and LoRA on the language model, on questions about single pictures; never on several.

Align and tune go on where they were stopped; `--export` writes what was trained into research/smol/weights. `--tiny` tries
everything on a small random model. Two processes share the work: `torchrun --nproc-per-node 2 research/smol/train.py`.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path
from typing import Any

import build
import numpy as np
import torch
import tower
import turns
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch.nn import functional

WORK = Path(__file__).parent / "work"
RANK = 12
SCALE = 2.0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def vision_state(model: Any) -> dict[str, torch.Tensor]:
    parts = {"tower.": model.model.vision_tower, "projector.": model.model.multi_modal_projector}
    return {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}


def load_vision(model: Any, state: dict[str, torch.Tensor]) -> None:
    for prefix, part in (("tower.", model.model.vision_tower), ("projector.", model.model.multi_modal_projector)):
        part.load_state_dict({name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)})


def lora_state(model: Any) -> dict[str, torch.Tensor]:
    """`NAME.A` (r, in) and `NAME.B` (out, r) of each adapted weight of the language model."""
    state = {}
    for name, value in model.model.language_model.named_parameters():
        if ".lora_" in name:
            stem, rest = name.split(".lora_")
            state[f"{stem}.{rest[0]}"] = value.detach()
    return state


def load_lora(model: Any, state: dict[str, torch.Tensor]) -> None:
    own = lora_state(model)
    for name, value in state.items():
        own[name].copy_(value)


def answer_loss(model: Any, batch: turns.Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of the answers' tokens; which value tokens were right, and the kinds of their questions."""
    asked = batch.labels != -100
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(
            input_ids=batch.input_ids, pixel_values=batch.pixel_values, attention_mask=batch.attention_mask,
            position_ids=batch.position_ids, use_cache=False,
        ).last_hidden_state  # fmt: skip
        logits = model.lm_head(hidden[asked]).float()
    wanted = batch.labels[asked]
    kinds = batch.value_of[asked]
    return functional.cross_entropy(logits, wanted), (logits.argmax(-1) == wanted)[kinds >= 0], kinds[kinds >= 0]


def draw_rows(rng: random.Random, count: int, captions_only: bool, tokenizer: Any) -> turns.Batch:
    pictures = tower.draw_batch(rng, count, "train", 0.2)
    talks = [turns.conversations(picture, rng, captions_only) for picture in pictures]
    return turns.collate(pictures, talks, tokenizer)


def train_language(model: Any, tokenizer: Any, name: str, steps: int, size: int, lr: float, every: int = 50) -> None:
    """`align` or `tune`, in place, with a checkpoint every so many steps."""
    file = WORK / f"{name}.partial.pt"
    tuned = [p for n, p in model.model.language_model.named_parameters() if ".lora_" in n] if name == "tune" else []
    parameters = [*model.model.multi_modal_projector.parameters(), *tuned]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    first = 0
    if file.exists():
        saved = torch.load(file)
        load_vision(model, saved["vision"])
        load_lora(model, saved["lora"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    started, recent = time.time(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * tower.rate(step, steps, 30)
        loss, hits, kinds = answer_loss(
            model, draw_rows(random.Random(f"{name}/{step}/{tower.rank()}"), size, name == "align", tokenizer)
        )
        loss.backward()
        tower.share(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append((loss.item(), hits, kinds))
        if step % 25 == 24 and not tower.rank():
            report(name, step + 1, time.time() - started, recent[-25:])
        if step % every == every - 1 and not tower.rank():
            state = {"vision": vision_state(model), "lora": lora_state(model), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1}, file)


def keep(state: dict[str, Any], file: Path) -> None:
    """Saved by the first process."""
    if not tower.rank():
        torch.save(state, file)


def report(name: str, step: int, seconds: float, recent: list[Any]) -> None:
    hits, kinds = torch.cat([r[1] for r in recent]), torch.cat([r[2] for r in recent])
    right = {kind: round(hits[kinds == i].float().mean().item(), 3) for i, kind in enumerate(turns.KINDS) if (kinds == i).any()}
    print(name, step, f"{seconds:.0f}s", f"{np.mean([r[0] for r in recent]):.3f}", right, flush=True)


def prepare(model: Any, rank: int = RANK) -> None:
    """LoRA into the language model, which is kept in bfloat16; what is trained stays in float32."""
    config = LoraConfig(r=rank, lora_alpha=round(SCALE * rank), target_modules=TARGETS, lora_dropout=0.0)
    model.model.language_model.bfloat16()
    inject_adapter_in_model(config, model.model.language_model)
    for name, parameter in model.model.language_model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
    model.set_attn_implementation("eager")  # its backward is faster than SDPA's on a CPU


def export(folder: Path = build.WEIGHTS) -> None:
    """What was trained, in bfloat16."""
    saved = torch.load(WORK / "tune.pt")
    folder.mkdir(exist_ok=True)
    for name, part in (("vision", "vision"), ("language", "lora")):
        save_file({key: value.bfloat16().contiguous() for key, value in saved[part].items()}, folder / f"{name}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tower-steps", type=int, default=6000)
    parser.add_argument("--tower-minutes", type=float, default=1e9, help="end the tower's training after so long")
    parser.add_argument("--tower-start", type=Path, help="weights to start the tower's training from")
    parser.add_argument("--align-steps", type=int, default=200)
    parser.add_argument("--tune-steps", type=int, default=800)
    parser.add_argument("--size", type=int, default=3, help="pictures in a step of align and tune, for each process")
    parser.add_argument("--tower-size", type=int, default=32, help="pictures in a step of the tower, for each process")
    parser.add_argument("--lr", type=float, default=8e-4, help="of LoRA and projector")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--export", action="store_true", help="only write what was trained into research/smol/weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    WORK.mkdir(exist_ok=True)
    if args.export:
        return export()
    tokenizer = build.load_tokenizer()
    model = build.tiny(tokenizer) if args.tiny else build.with_language(tokenizer)
    done = WORK / "tower.pt"
    if done.exists():
        load_vision(model, torch.load(done))
    else:
        if args.tower_start:
            load_vision(model, torch.load(args.tower_start))
        words = tower.word_vectors(tokenizer, model.get_input_embeddings().weight.detach())
        tower.train_tower(model, words, args.tower_steps, size=args.tower_size, minutes=args.tower_minutes)
        keep(vision_state(model), done)
    prepare(model)
    for name, steps, lr in (("align", args.align_steps, 1e-3), ("tune", args.tune_steps, args.lr)):
        done = WORK / f"{name}.pt"
        if done.exists():
            saved = torch.load(done)
            load_vision(model, saved["vision"])
            load_lora(model, saved["lora"])
            continue
        train_language(model, tokenizer, name, steps, args.size, lr)
        keep({"vision": vision_state(model), "lora": lora_state(model)}, done)


if __name__ == "__main__":
    main()
