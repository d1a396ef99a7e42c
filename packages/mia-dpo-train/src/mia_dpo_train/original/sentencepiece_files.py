"""A `tokenizer.model` of SentencePiece as a fast tokenizer that gives the same ids, without the library that wrote it.

The file is a protocol buffer (sentencepiece_model.proto): field 1 repeats a piece, with its text (1), score (2) and kind (3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mia_augment import ModelError

_CONTROL, _UNKNOWN = 3, 2


def llama_tokenizer(folder: Path) -> Any:
    """The tokenizer of a Llama or Vicuna folder, as its slow tokenizer splits words; `</s>` ends, `<unk>` fills up.

    Every stretch of text between special tokens begins with a blank of its own, which LLaVA's code makes too, since it
    tokenizes what stands between pictures piece by piece.

    Raises:
        ModelError: there is neither a tokenizer.model nor a tokenizer.json of that kind.
    """
    from transformers import PreTrainedTokenizerFast

    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    core = _core(folder)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, **names, clean_up_tokenization_spaces=False, model_input_names=["input_ids", "attention_mask"]
    )
    return made


def _core(folder: Path) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    if (folder / "tokenizer.model").is_file():
        pieces = read_pieces(folder / "tokenizer.model")
        vocabulary = {text: index for index, (text, _, _) in enumerate(pieces)}
        merges = _merges(vocabulary, [score for _, score, _ in pieces])
        core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        special = [AddedToken(text, special=True, normalized=False) for text, _, kind in pieces if kind in (_CONTROL, _UNKNOWN)]
        core.add_special_tokens(special)
    elif (folder / "tokenizer.json").is_file():
        core = Tokenizer.from_file(str(folder / "tokenizer.json"))
        core.pre_tokenizer = None
    else:
        raise ModelError(f"{folder}: expected the tokenizer's tokenizer.model or tokenizer.json, found neither")
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    blanks = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(blanks)
    bos = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)])
    return core


def _merges(vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Pairs of tokens that make one, the best first: SentencePiece joins where the joined piece has the highest score."""
    found = []
    for text, index in vocabulary.items():
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [(one, other) for one, other in pairs if one in vocabulary and other in vocabulary]
        found += [(-scores[index], vocabulary[one], vocabulary[other], (one, other)) for one, other in known]
    return [pair for *_, pair in sorted(found)]


def read_pieces(file: Path) -> list[tuple[str, float, int]]:
    """Text, score and kind (1: normal, 2: unknown, 3: control, 6: byte) of every piece.

    Raises:
        ModelError: the file is none of SentencePiece.
    """
    try:
        pieces = []
        for number, value in _fields(file.read_bytes()):
            if number == 1 and isinstance(value, bytes):
                own = dict(_fields(value))
                score = struct.unpack("<f", own[2])[0] if 2 in own else 0.0
                pieces.append((own[1].decode("utf-8"), score, own.get(3, 1)))
    except (ValueError, IndexError, KeyError, AttributeError, struct.error) as error:
        raise ModelError(f"{file}: expected a model of SentencePiece, found something else; copy it again") from error
    if not pieces:
        raise ModelError(f"{file}: expected a model of SentencePiece with pieces, found none; copy it again")
    return pieces


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of every field of a protocol buffer; numbers as int, all else as bytes."""
    place = 0
    while place < len(data):
        key, place = _number(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _number(data, place)
            yield key >> 3, value
            continue
        if kind == 2:
            size, place = _number(data, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + size > len(data):
            raise ValueError("cut off")
        yield key >> 3, data[place : place + size]
        place += size


def _number(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
