"""A checkpoint in the layout of LLaVA's original code computes the same after `convert_llava`."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from mia_augment import IMAGE, ModelError
from mia_augment.prompting import answer_ids, process, render_prompt, stop_ids
from mia_cli.main import main
from mia_dpo_train import convert_llava
from mia_dpo_train.original.sentencepiece_files import read_pieces
from PIL import Image

WORDS = ["▁USER", "▁ASSISTANT", ":", "▁A", "▁what", "▁is", "▁it", "?", ".", "▁cat", "cat", "Image", "1", "2", "▁t", "▁the"]
LETTERS = ["▁", *"USERAITNwhatiscmgeqfvludponkrb,.:?'’12"]
SIDE, PATCH, WIDTH = 28, 14, 32


def pieces() -> list[tuple[str, float, int]]:
    """Text, score and kind, in the order of a Llama vocabulary: controls, bytes, joined pieces (the best first), letters."""
    joined = []
    for word in WORDS:
        joined += [word[:end] for end in range(2, len(word) + 1)]
    joined = [text for text in dict.fromkeys(joined) if text not in LETTERS]
    found = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    found += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    found += [(text, -float(rank), 1) for rank, text in enumerate(joined)]
    return found + [(text, -1e4 - rank, 1) for rank, text in enumerate(dict.fromkeys(LETTERS))]


def field(number: int, data: bytes) -> bytes:
    size, out = len(data), bytearray([number << 3 | 2])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes(out) + bytes([size]) + data


def sentencepiece(file: Path) -> None:
    rows = b""
    for text, score, kind in pieces():
        rows += field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([3 << 3, kind]))
    file.write_bytes(rows + field(2, b"\x18\x02"))  # and the trainer's settings, which nobody reads


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any, Any]:
    """A language model, a CLIP model and a projector, all random."""
    torch.manual_seed(0)
    text = hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=len(pieces()), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, rope_theta=5000.0, rms_norm_eps=1e-5,
        )
    )  # fmt: skip
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    clip = hf.CLIPModel(
        hf.CLIPConfig(
            vision_config=dict(small, image_size=SIDE, patch_size=PATCH),
            text_config=dict(small, vocab_size=9),
            projection_dim=8,
        )
    )
    projector = torch.nn.Sequential(torch.nn.Linear(16, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH))
    for module in (text, clip, projector):
        module.eval()
        for parameter in module.parameters():
            parameter.data.normal_(0, 0.3)
    return text, clip, projector


def write(folder: Path, parts: tuple[Any, Any, Any], *, tower_inside: bool = False, **changes: Any) -> Path:
    """The folder liuhaotian/llava-v1.5-7b has, in small; the names of its weights are those of the original code."""
    text, clip, projector = parts
    folder.mkdir()
    config = {
        "_name_or_path": "llava-v1.5-7b", "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava", "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "hidden_act": "silu", "hidden_size": WIDTH, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 5000.0, "rope_scaling": None, "tie_word_embeddings": False,
        "vocab_size": len(pieces()),
        "image_aspect_ratio": "pad", "mm_hidden_size": 16, "mm_projector_type": "mlp2x_gelu", "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336", "torch_dtype": "float16", "use_cache": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    sentencepiece(folder / "tokenizer.model")
    weights = {name: tensor.clone() for name, tensor in text.state_dict().items()}
    projected = {f"model.mm_projector.{name}": tensor.clone() for name, tensor in projector.state_dict().items()}
    if tower_inside:
        tower = clip.vision_model.state_dict()
        projected |= {f"model.vision_tower.vision_tower.vision_model.{name}": value.clone() for name, value in tower.items()}
    torch.save(weights, folder / "pytorch_model-00001-of-00002.bin")
    torch.save(projected, folder / "pytorch_model-00002-of-00002.bin")
    return folder


def clip_folder(folder: Path, clip: Any) -> Path:
    clip.save_pretrained(folder)
    mean = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps({"crop_size": SIDE, "size": SIDE, "resample": 3, **mean}))
    return folder


def originals_logits(parts: tuple[Any, Any, Any], ids: list[int], image_token: int, pixels: torch.Tensor) -> torch.Tensor:
    """What the original code computes: CLIP's last layer but one without its first token, projected, in the picture's place."""
    text, clip, projector = parts
    states = clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    seen = iter(projector(states).flatten(0, 1))
    rows = [next(seen) if token == image_token else text.model.embed_tokens.weight[token] for token in ids]
    logits: torch.Tensor = text(inputs_embeds=torch.stack(rows)[None]).logits[0]
    return logits


@pytest.mark.parametrize("inside", [True, False])
@torch.no_grad()
def test_the_same_is_computed(tmp_path: Path, parts: tuple[Any, Any, Any], inside: bool) -> None:
    checkpoint = write(tmp_path / "llava", parts, tower_inside=inside)
    tower = clip_folder(tmp_path / "clip", parts[1])
    made = convert_llava(checkpoint, tmp_path / "out", tower)
    assert made.image_tokens == (SIDE // PATCH) ** 2
    model = hf.AutoModelForImageTextToText.from_pretrained(made.folder, dtype=torch.float32).eval()
    processor = hf.AutoProcessor.from_pretrained(made.folder)
    pictures = [Image.new("RGB", (60, 30), (200, 30, 90)), Image.linear_gradient("L").convert("RGB").resize((20, 50))]
    text = render_prompt(processor, f"Image1:{IMAGE}\nImage2:{IMAGE}\nwhat is it?")
    inputs = process(processor, [text], [pictures])
    ids, image_token = inputs["input_ids"][0].tolist(), len(pieces())
    assert ids.count(image_token) == 2 * made.image_tokens
    wanted = originals_logits(parts, ids, image_token, inputs["pixel_values"])
    assert torch.allclose(model(**inputs).logits[0, :, :image_token], wanted, atol=2e-5)
    assert made.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_pictures_are_padded_in_the_mean_colour(tmp_path: Path, parts: tuple[Any, Any, Any]) -> None:
    convert_llava(write(tmp_path / "llava", parts), tmp_path / "out", clip_folder(tmp_path / "clip", parts[1]))
    processor = hf.AutoProcessor.from_pretrained(tmp_path / "out")
    pixels = processor.image_processor(Image.new("RGB", (56, 28), (255, 0, 0)))["pixel_values"][0]
    mean, std = (
        torch.tensor(values)[:, None] for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    seen = torch.as_tensor(pixels)[:, [1, SIDE // 2], SIDE // 2] * std + mean
    assert (seen[:, 0] * 255).round().tolist() == [122, 116, 104]
    assert seen[:, 1].tolist() == pytest.approx([1, 0, 0], abs=1e-3)


def test_the_prompt_and_its_tokens_are_the_originals(tmp_path: Path, parts: tuple[Any, Any, Any]) -> None:
    """Each text between pictures begins with a blank of its own, as it is tokenized by itself there."""
    convert_llava(write(tmp_path / "llava", parts), tmp_path / "out", clip_folder(tmp_path / "clip", parts[1]))
    processor = hf.AutoProcessor.from_pretrained(tmp_path / "out")
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    )
    assert render_prompt(processor, "<image>\nwhat is it?") == system + "USER: <image>\nwhat is it? ASSISTANT:"
    several = "Image1:<image>\nImage2:<image>\nwhat is it?"
    assert render_prompt(processor, several) == system + f"USER: {several} ASSISTANT:"
    ids = process(processor, [render_prompt(processor, "<image> cat?")], [[Image.new("RGB", (9, 9))]])["input_ids"][0].tolist()
    words = processor.tokenizer.convert_ids_to_tokens(ids)
    place = words.index("<image>")
    assert words[place - 2 : place] == [":", "▁"]
    assert words[place + 4 :] == ["▁", "<0x0A>", "cat", "?", "▁ASSISTANT", ":"]  # the blank before cat is the break's
    assert words[0] == "<s>"
    assert words.count("<s>") == 1
    model = hf.AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert answer_ids(processor, "<image>\nwhat is it?", "A cat", stops=stop_ids(model, processor)) == [
        *processor.tokenizer.convert_tokens_to_ids(["▁A", "▁cat"]), 2,
    ]  # fmt: skip


def test_pieces_are_read_as_they_were_written(tmp_path: Path) -> None:
    sentencepiece(tmp_path / "tokenizer.model")
    assert read_pieces(tmp_path / "tokenizer.model") == [(text, pytest.approx(score), kind) for text, score, kind in pieces()]


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"version https://git-lfs.github.com/spec/v1\n"])
def test_no_sentencepiece_is_said(tmp_path: Path, parts: tuple[Any, Any, Any], content: bytes) -> None:
    checkpoint = write(tmp_path / "llava", parts)
    (checkpoint / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match="expected a model of SentencePiece"):
        convert_llava(checkpoint, tmp_path / "out", clip_folder(tmp_path / "clip", parts[1]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear': expected 'mlp2x_gelu'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres': expected 'square' or 'pad'"),
        ({"model_type": "llava_mistral"}, "model_type is 'llava_mistral'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True: expected False"),
        ({"num_hidden_layers": 3}, "9 weights are missing, among them language_model.model.layers.2"),
        ({"num_hidden_layers": 1}, "expected shape None"),
    ],
)
def test_what_cannot_be_converted_is_said(tmp_path: Path, parts: tuple[Any, Any, Any], changes: Any, said: str) -> None:
    checkpoint = write(tmp_path / "llava", parts, **changes)
    with pytest.raises(ModelError, match=said):
        convert_llava(checkpoint, tmp_path / "out", clip_folder(tmp_path / "clip", parts[1]))
    assert not (tmp_path / "out").exists()


def test_without_its_vision_tower_the_command_is_told(tmp_path: Path, parts: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ModelError, match="hf download openai/clip-vit-large-patch14-336 --local-dir CLIP; mia convert"):
        convert_llava(write(tmp_path / "llava", parts), tmp_path / "out")


def test_the_command_writes_a_model_that_every_other_takes(tmp_path: Path, parts: tuple[Any, Any, Any]) -> None:
    from click.testing import CliRunner
    from mia_attention import load_model

    checkpoint, tower = write(tmp_path / "llava", parts), clip_folder(tmp_path / "clip", parts[1])
    with pytest.raises(ModelError, match=rf"mia convert {checkpoint} --vision-tower CLIP --out DIR"):
        load_model(str(checkpoint))
    result = CliRunner().invoke(
        main, ["convert", str(checkpoint), "--vision-tower", str(tower), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    again = CliRunner().invoke(main, ["convert", str(checkpoint), "--vision-tower", str(tower), "--out", str(tmp_path / "out")])
    assert (again.exit_code, "--overwrite" in str(again.output) + str(again.stderr)) == (2, True)
    model, processor = load_model(str(tmp_path / "out"))
    assert model.config.model_type == "llava"
    assert processor.tokenizer.eos_token == "</s>"
