"""Attention weights of a few query rows, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

ROW_CHUNK = 128
"""Rows whose per-head weights are held at once."""


def attention_rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float,
    *,
    softcap: float | None = None,
    value: Tensor | None = None,
    sink: Tensor | None = None,
    row_chunk: int = ROW_CHUNK,
) -> Tensor:
    """softmax(scaling * q k^T + mask), mean over heads, for chosen query rows.

    Args:
        query: the chosen rows, (batch, heads, rows, dim).
        key: (batch, key_heads, keys, dim); heads is a multiple of key_heads (grouped queries).
        mask: True where a row may look, or a number to add; (batch | 1, heads | 1, rows, keys). None: it may look anywhere.
        scaling: of the dot products, usually dim ** -0.5.
        softcap: c of c * tanh(x / c), applied before the mask.
        value: (batch, key_heads, keys, dim); if given, each head's weights are multiplied by the length of the value vector
            they fetch, and rows sum to 1 again after the mean over heads.
        sink: a further logit of each row that belongs to no key, (batch | 1, heads, rows | 1, 1).
        row_chunk: rows worked on at once, which bounds memory.

    Returns:
        (batch, rows, keys), float32, each row sums to 1, less what the sink takes.
    """
    batch, heads, rows, _ = query.shape
    groups, keys = heads // key.shape[1], key.shape[2]
    lengths = None if value is None else torch.linalg.vector_norm(value.float(), dim=-1)
    out = torch.empty((batch, rows, keys), dtype=torch.float32, device=query.device)
    for start in range(0, rows, row_chunk):
        part = slice(start, min(start + row_chunk, rows))
        rows_mask = None if mask is None else mask[:, :, part]
        rows_sink = sink if sink is None or sink.shape[2] == 1 else sink[:, :, part]
        weights = head_rows(query[:, :, part], key, rows_mask, scaling, softcap=softcap, sink=rows_sink)
        if lengths is not None:
            weights = weights * lengths.repeat_interleave(groups, dim=1)[:, :, None]
        out[:, part] = weights.mean(1)
    return out if lengths is None else out / out.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def head_rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float,
    *,
    softcap: float | None = None,
    sink: Tensor | None = None,
) -> Tensor:
    """softmax(scaling * q k^T + mask) of each head; arguments as in `attention_rows`.

    Returns:
        (batch, heads, rows, keys), float32, each row sums to 1, less what the sink takes.
    """
    batch, heads, rows, dim = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, key_heads, heads // key_heads * rows, dim)
    logits = (torch.matmul(grouped, key.transpose(-1, -2)) * scaling).view(batch, heads, rows, keys)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    elif mask is not None:
        logits = logits + mask
    if sink is None:
        return torch.softmax(logits, dim=-1, dtype=torch.float32)
    logits = torch.cat([logits, sink.to(logits.dtype).expand(batch, heads, rows, 1)], dim=-1)
    return torch.softmax(logits, dim=-1, dtype=torch.float32)[..., :-1]


def visible(
    mask: Tensor | None,
    rows: Tensor,
    q_len: int,
    k_len: int,
    *,
    causal: bool,
    flash: bool,
    window: int | None = None,
) -> Tensor | None:
    """The mask of chosen rows, whatever way the attention implementation was told.

    Args:
        mask: as the implementation got it: None; (batch, q or k) True for real tokens, causality implied (flash);
            or (batch | 1, heads | 1, q_len | 1, >= k_len), bool or to be added.
        rows: chosen rows of this call, (rows,), counted within its q_len queries.
        q_len, k_len: queries and keys of this call.
        causal: whether the implementation masks the future by itself where it got no 4D mask.
        flash: a shorter q_len is aligned to the last keys (flash attention), not to the first (SDPA).
        window: of sliding attention; it needs applying only where no 4D mask says it.

    Returns:
        None (every key may be seen) or a mask for `attention_rows`, (batch | 1, heads | 1, rows, k_len).
    """
    if mask is not None and mask.dim() == 4:
        rows_mask = mask[..., :k_len]
        return rows_mask.index_select(2, rows) if rows_mask.shape[2] > 1 else rows_mask.expand(-1, -1, len(rows), -1)
    allowed = None
    if causal and (q_len > 1 or flash):
        keys = torch.arange(k_len, device=rows.device)
        last = (rows + (k_len - q_len if flash else 0))[:, None]
        allowed = keys <= last
        if window is not None:
            allowed = allowed & (keys > last - window)
        allowed = allowed[None, None]
    if mask is not None:
        real = mask[:, None, None, -k_len:].bool()
        allowed = real if allowed is None else allowed & real
        allowed = allowed.expand(-1, -1, len(rows), -1)
    return allowed
