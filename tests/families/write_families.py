"""Write docs/families.md: `uv run python tests/families/write_families.py` (ten minutes on one core).

Each type of transformers' image-text-to-text table is built tiny, in a process of its own, and everything is tried with it.
With names of types behind it, only their rows are made anew; with --print among them, none is written.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "families.md"
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

from family_builds import TYPES  # noqa: E402
from family_columns import COLUMNS, Line, measured  # noqa: E402

SECONDS = 300
"""For one type."""
HEAD = """# Model families

What works with each type of transformers' image-text-to-text table ({version}), measured on a tiny random model with its
real processor: *attention*: the tokens of each picture are found (another picture changes them and no others) and captured
rows equal eager attention; *score*: samples are answered and measured, by attention or, where it cannot be read, by the readout
that is named, which needs none; *training*: a batch's log-probs equal those of each answer alone, by the cheapest exact route,
which is named; *boxes*: the tokens that a painted box changes are those that are
said to see it, so that grids, strips and pic-in-pics can be measured. Made by `tests/families/write_families.py`; the tests
hold what stands here.

Boxes of a family that is not described are found by painting when a model is first scored; a model of your own can be described
in [a function](extend.md#a-model-family). "Single" formats and sequences need no boxes.

{counts}

What can be reached at most:

- *attention* 81. Five types take no pictures or write no next token (`diffusion_gemma`, `evolla`, `instructblipvideo`,
  `mistral4`, `pi0`); in eleven no token of the decoder's prompt stands for a picture: encoders with decoders (`florence2`,
  `pix2struct`, `pp_formulanet`, `t5gemma2`, `udop`, `vision-encoder-decoder`), cross-attention (`blip`, `idefics`, `mllama`),
  pictures before the text (`git`), prompts that the processor writes itself (`shieldgemma2`).
- *score* 86: besides the five and `shieldgemma2`, without `pix2struct`, `pp_formulanet`, `vision-encoder-decoder` and `udop`,
  whose prompt is no text, and `blip`, which answers another prompt than it is given. *training* 87: these and `blip`.
- *boxes* 72: those whose attention can be read, without eight whose visual tokens are queries that read the whole picture, and
  `chameleon`, whose norms mix it.

| type | attention | score | training | boxes |
|---|---|---|---|---|
"""
YES = "yes"


def written(lines: Sequence[Line], kept: Mapping[str, str] | None = None) -> str:
    """The page.

    Args:
        kept: rows of other types as they stand, by type.
    """
    import transformers

    rows = {**(kept or {}), **{line.name: f"| `{line.name}` | {' | '.join(_cells(line))} |\n" for line in lines}}
    rows = {name: rows[name] for name in sorted(rows)}
    working = Counter(column for row in rows.values() for column, works in _marks(row).items() if works)
    counts = f"Of {len(rows)} types: " + ", ".join(f"{column} {working[column]}" for column in COLUMNS) + "."
    return HEAD.format(version=transformers.__version__, counts=counts) + "".join(rows.values())


def _cells(line: Line) -> list[str]:
    """One cell a column; a reason that holds for all of them stands once."""
    reasons = [getattr(line, column) for column in COLUMNS]
    if len(set(reasons)) == 1 and reasons[0]:
        return [_harmless(reasons[0]), "no", "no", "no"]
    yes = {"training": line.route or YES, "score": f"`{line.readout}`" if line.readout else YES}
    return [_harmless(reason) if reason else yes.get(column, YES) for column, reason in zip(COLUMNS, reasons, strict=True)]


def _harmless(reason: str) -> str:
    short = reason if len(reason) <= 160 else reason[:157] + "..."
    return "no: " + short.replace("|", "\\|").replace("<", "&lt;")


def read_marks(page: Path) -> dict[str, dict[str, bool]]:
    """By type and column, whether a page says that it works."""
    return {name: _marks(row) for name, row in read_rows(page).items()}


def read_rows(page: Path) -> dict[str, str]:
    """The rows of a page, by type."""
    text = page.read_text("utf-8") if page.is_file() else ""
    return {name: row for row, name in re.findall(r"^(\| `([^`]+)` \| .* \|\n)", text, re.MULTILINE)}


def _marks(row: str) -> dict[str, bool]:
    cells = re.split(r"(?<!\\) \| ", row.strip().removeprefix("| ").removesuffix(" |"))[1:]
    return {column: not cell.startswith("no") for column, cell in zip(COLUMNS, cells, strict=True)}


def in_own_process(name: str) -> Line:
    """Measure one type; what crashes or hangs costs its own line."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    worker = context.Process(target=lambda: theirs.send(measured(name)))
    worker.start()
    try:
        line: Line = ours.recv() if ours.poll(SECONDS) else Line(name, *[f"its tiny build takes more than {SECONDS} s"] * 4)
    except EOFError:
        line = Line(name, *["its tiny build crashes"] * 4)
    worker.kill()
    worker.join()
    return line


def main(names: Sequence[str]) -> None:
    """Write the page; with names, only the rows of these types."""
    lines = []
    asked = [name for name in names if name != "--print"]
    for name in asked or TYPES:
        lines.append(in_own_process(name))
        print(name, *(f"{column}: {getattr(lines[-1], column) or 'yes'};" for column in COLUMNS), lines[-1].route, flush=True)
    if "--print" not in names:
        PAGE.write_text(written(lines, read_rows(PAGE) if asked else None), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
