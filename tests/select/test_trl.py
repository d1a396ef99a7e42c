"""The exports in TRL's own trainer, on a tiny random LLaVA."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from mia_augment.records import PreferencePair, ScoredSample
from mia_augment.storage.files import Manifest, write_jsonl, write_manifest
from mia_select import select
from mia_select.export import export_pairs, trl_rows
from PIL import Image

trl = pytest.importorskip("trl", reason="trl is not installed: its trainer cannot be tried on the export")
datasets = pytest.importorskip("datasets", reason="datasets is not installed: the export cannot be loaded as TRL does")

MakeScored = Callable[..., ScoredSample]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path, make_scored: MakeScored) -> Path:
    """One pair over three pictures and one over a grid."""
    samples = [make_scored("seq", parts=3, target=1), make_scored("grid", format="grid", parts=2)]
    pairs = [record for record in select(samples) if isinstance(record, PreferencePair)]
    for number, name in enumerate([*pairs[0].images, *pairs[1].images]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + 8 * number, 32), (60 * number, 0, 90)).save(tmp_path / "photos" / name)
    folder = tmp_path / "pairs"
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_manifest(folder, Manifest(stage="select", version="0", settings={}, inputs={}, image_folders=["../photos"]))
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Folder of a tiny model, and its processor."""
    import torch
    import transformers as hf
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    words = "<pad> <s> </s> <unk> <image> user assistant The color is red. blue. In Image1: Image2: Image3: Image2, what it?"
    vocabulary = {word: index for index, word in enumerate(words.split())}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    processor = hf.LlavaProcessor(
        image_processor=hf.LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    torch.manual_seed(0)
    vision = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = hf.LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=len(vocabulary),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = hf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=vocabulary["<image>"], vision_feature_layer=-1
    )
    model = tmp_path_factory.mktemp("llava")
    hf.LlavaForConditionalGeneration(config).save_pretrained(model)
    return model, processor


def load(folder: Path, way: str, out: Path) -> Any:
    """The dataset as a user would load it."""
    if way == "rows":
        return datasets.Dataset.from_list(list(trl_rows(folder)))
    file = export_pairs(folder, "trl" if way == "json" else way, out)
    dataset = datasets.load_dataset(way, data_files=str(file), split="train", cache_dir=str(out / "cache"))
    return dataset if way == "parquet" else dataset.cast_column("images", datasets.List(datasets.Image()))


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")
@pytest.mark.parametrize("way", ["json", "parquet", "rows"])
def test_trl_trains_one_step_on_the_export(folder: Path, tmp_path: Path, llava: tuple[Path, Any], way: str) -> None:
    import transformers as hf

    model, processor = hf.LlavaForConditionalGeneration.from_pretrained(llava[0]), llava[1]
    dataset = load(folder, way, tmp_path / "out")
    assert [image.size for image in dataset[0]["images"]] == [(40, 32), (48, 32), (56, 32)]
    before = model.lm_head.weight.detach().clone()
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trained"),
        per_device_train_batch_size=2,
        max_steps=1,
        max_length=None,
        learning_rate=1e-2,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=processor)
    (batch,) = trainer.get_train_dataloader()
    assert batch["pixel_values"].shape[0] == 2 * 4, "three pictures and one grid, with chosen and with rejected"
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == [pytest.approx(math.log(2), abs=1e-3)], "policy and reference are still equal"
    assert not before.equal(model.lm_head.weight)
