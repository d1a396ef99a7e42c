"""Find out from its markers and tables whether a JPEG is complete; no pixel is decoded.

Libjpeg decodes nearly anything: what is missing becomes grey, and zeros are read as codes. Terms as in ITU-T T.81.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

ZEROS = bytes(512)
"""Zero bytes in a row that compressed data holds only where the picture is flat."""
_ZERO_RUN = re.compile(rb"\0{512,}")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker that ends a scan: not a stuffed byte, a restart or a fill byte."""
_END, _START_SCAN, _TABLES, _NO_LENGTH = 0xD9, 0xDA, 0xC4, (0x01, 0xD8)
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_BEHIND = b"\xaa" * 8
"""Put in place of the end marker: a decoder that still has blocks to fill then asks for more instead of painting them grey."""


@dataclass(frozen=True)
class _Code:
    """The code of zeros only in a Huffman table, the shortest one."""

    bits: int
    symbol: int


@dataclass(frozen=True)
class _Scan:
    components: tuple[int, ...]
    tables: tuple[tuple[_Code | None, _Code | None], ...]
    """(DC, AC) of each component."""
    first: int
    last: int
    """Coefficients, 0..63 in zigzag order."""
    high: int
    low: int
    """Bit positions of successive approximation; `high` is 0 unless the scan refines."""
    start: int
    end: int
    """Where its coded data lies."""


@dataclass
class _Layout:
    kind: int = 0
    size: tuple[int, int] = (0, 0)
    """(width, height) px."""
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Component -> (horizontal, vertical) factor."""
    scans: list[_Scan] = field(default_factory=list)
    end: int | None = None
    """Where the end marker stands."""


def jpeg_damage(data: bytes) -> str | None:
    """Why a JPEG is not whole, as far as its markers and its zero bytes tell; None: no damage was found.

    Told are scans that are missing, and runs of zero bytes longer than any flat picture of this size makes them: the shortest
    code of a table is zeros only, so a run is as long as what this code stands for goes on. Files of kinds that are not
    understood (arithmetic coding, lossless) pass.
    """
    layout = _layout(data)
    return None if layout is None else _missing(layout) or _zero_filled(data, layout)


def without_end(data: bytes) -> bytes | None:
    """A JPEG of a single scan whose end marker is replaced, so that decoders notice when the scan ends too early.

    None: it has no end marker, or several scans (there `damage` tells).
    """
    layout = _layout(data)
    if layout is None or layout.end is None or layout.kind not in _SEQUENTIAL or len(layout.scans) != 1:
        return None
    scan = layout.scans[0]
    return data[: scan.end] + _BEHIND if scan.end == layout.end else None


def _layout(data: bytes) -> _Layout | None:
    """The frame and the scans of the first picture in a file; None where they are of no kind that is understood."""
    try:
        layout = _read(data)
    except IndexError:
        return None
    known = layout.kind in _SEQUENTIAL or layout.kind == _PROGRESSIVE
    return layout if known and 0 not in layout.size and layout.scans else None


def _read(data: bytes) -> _Layout:
    layout, position = _Layout(), 2
    tables: dict[int, _Code] = {}
    while marker := _MARKER.search(data, position):
        code, position = marker.group()[1], marker.end()
        if code == _END:
            layout.end = marker.start()
            break
        if code in _NO_LENGTH:
            continue
        body = data[position + 2 : position + int.from_bytes(data[position : position + 2])]
        position += len(body) + 2
        if code in _FRAMES:
            layout.kind = code
            layout.size = int.from_bytes(body[3:5]), int.from_bytes(body[1:3])
            layout.sampling = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, 6 + 3 * body[5], 3)}
        elif code == _TABLES:
            tables.update(_zero_codes(body))
        elif code == _START_SCAN:
            behind = _MARKER.search(data, position)
            layout.scans.append(_scan(body, tables, position, behind.start() if behind else len(data)))
            position = layout.scans[-1].end
    return layout


def _zero_codes(body: bytes) -> Iterator[tuple[int, _Code]]:
    """(class and number, shortest code) of each Huffman table of a segment."""
    while body:
        counts = body[1:17]
        bits = next((length for length, count in enumerate(counts, 1) if count), 0)
        yield body[0], _Code(bits, body[17])
        body = body[17 + sum(counts) :]


def _scan(body: bytes, tables: Mapping[int, _Code], start: int, end: int) -> _Scan:
    entries = [(body[i], body[i + 1]) for i in range(1, 1 + 2 * body[0], 2)]
    first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    return _Scan(
        components=tuple(component for component, _ in entries),
        tables=tuple((tables.get(used >> 4), tables.get(0x10 | used & 15)) for _, used in entries),
        first=first,
        last=last,
        high=bits >> 4,
        low=bits & 15,
        start=start,
        end=end,
    )


def _missing(layout: _Layout) -> str | None:
    """Which part of the picture no scan holds."""
    seen = {component for scan in layout.scans for component in scan.components}
    if absent := set(layout.sampling) - seen:
        return f"it breaks off: {len(absent)} of its {len(layout.sampling)} colour components have no scan"
    if layout.kind == _PROGRESSIVE:
        exact = {(c, k) for s in layout.scans if s.low == 0 for c in s.components for k in range(s.first, s.last + 1)}
        if lost := 64 * len(layout.sampling) - len(exact):
            share = lost / (64 * len(layout.sampling))
            return f"it breaks off: scans are missing, {share:.0%} of its coefficients are absent or coarse"
    return None


def _zero_filled(data: bytes, layout: _Layout) -> str | None:
    for scan in layout.scans:
        if data.find(ZEROS, scan.start, scan.end) < 0:
            continue
        longest = max(len(run.group()) for run in _ZERO_RUN.finditer(data, scan.start, scan.end))
        if longest > len(ZEROS) + _flat_bits(scan, layout) / 8:
            return f"zero-filled: {longest} zero bytes in a row stand where its pixels should be (an interrupted download?)"
    return None


def _flat_bits(scan: _Scan, layout: _Layout) -> float:
    """Zero bits in a row that a sound scan can have at most, were the whole picture flat."""
    widest = max(across for across, _ in layout.sampling.values())
    highest = max(down for _, down in layout.sampling.values())
    units = math.ceil(layout.size[0] / (8 * widest)) * math.ceil(layout.size[1] / (8 * highest))
    costs = [_block_bits(scan, dc, ac, layout.kind) for dc, ac in scan.tables]
    if 0 in costs:  # the code of zeros means something else there: no block of that component is zeros only
        return 0
    sizes = [math.prod(layout.sampling[component]) for component in scan.components]
    return units * sum(size * cost for size, cost in zip(sizes, costs, strict=True))


def _block_bits(scan: _Scan, dc: _Code | None, ac: _Code | None, kind: int) -> float:
    """Bits per flat block whose codes are zeros only; 0: such a block has another code. Infinite where it is not known."""
    if kind == _PROGRESSIVE and scan.high:
        return 1 if scan.first == 0 else 8  # refined by plain bits; of a block's 63 hardly more than 8 are zeros throughout
    if (dc is None and scan.first == 0) or (ac is None and scan.last > 0):
        return math.inf
    bits = 0.0
    if scan.first == 0 and dc:
        if dc.symbol:
            return 0
        bits += dc.bits
    if scan.last > 0 and ac:
        run, size = ac.symbol >> 4, ac.symbol & 15
        if size or (run and (kind != _PROGRESSIVE or run == 15)):
            return 0
        bits += (ac.bits + run) / 2**run  # the end of 2^run blocks
    return bits
