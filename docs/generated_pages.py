"""Pages of the documentation site that are made while it is built, so that they cannot differ from the code:
command line, settings, records, and what stands elsewhere in the repository already (READMEs, results, changes).

A hook of mkdocs, see `mkdocs.yml`.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from mia_augment import records
from mia_cli.config.commented_yaml import commented_yaml, documentation, entries
from mia_cli.config.recipe_files import RECIPES, recipe_meaning
from mia_cli.config.schema import PipelineConfig
from mia_cli.main import main as mia
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mia-augment", "mia-attention", "mia-select", "mia-dpo-train", "mia-cli")
ELSEWHERE = {
    "measured.md": "benchmarks/RESULTS.md",
    "contributing.md": "CONTRIBUTING.md",
    "embedded-model.md": "packages/mia-cli/src/mia_cli/embedded/MODEL_CARD.md",
    "benchmarks.md": "examples/harnesses/README.md",
    **{f"packages/{name}.md": f"packages/{name}/README.md" for name in PACKAGES},
}
"""Page -> the file of the repository it shows."""
RECORDS = (
    records.Region, records.Source, records.Turn, records.Sample, records.Attention, records.ScoredSample,
    records.PreferencePair, records.Skipped, records.Dropped,
)  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for page, source in ELSEWHERE.items():
        text = _plain((ROOT / source).read_text("utf-8"))
        files.append(File.generated(config, page, content=_on_the_site(text, ROOT / source, page)))
    made: dict[str, Callable[[], Iterator[str]]] = {
        "reference/cli.md": _command_line,
        "reference/pipeline.md": _pipeline,
        "reference/records.md": _records,
        "reference/python.md": _python,
        "changes.md": _changes,
    }
    for page, lines in made.items():
        files.append(File.generated(config, page, content="\n".join(lines())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put a recipe's meaning and file where a page asks for it."""
    return re.sub(r"<!-- recipe (\w+) -->", lambda found: "\n".join(_recipe(found[1])), markdown)


def _recipe(name: str) -> Iterator[str]:
    yield f"{recipe_meaning(name)}\n"
    yield "```yaml"
    yield from (line for line in RECIPES[name].read_text("utf-8").splitlines() if not line.startswith("#"))
    yield "```"


def _plain(text: str) -> str:
    """Without the front matter of a model card."""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)


def _on_the_site(text: str, source: Path, page: str) -> str:
    """Let links between files of the repository lead to the pages that show them; where none does, the words stay."""
    pages = {(ROOT / shown).resolve(): name for name, shown in ELSEWHERE.items()}
    pages |= {path.resolve(): path.name for path in (ROOT / "docs").iterdir()}

    def link(found: re.Match[str]) -> str:
        words, target, place = found.groups()
        if "://" in target or not target or not (source.parent / target).exists():
            return found[0]
        shown = pages.get((source.parent / target).resolve())
        return words if shown is None else f"[{words}]({'../' * page.count('/')}{shown}{place or ''})"

    return re.sub(r"(?<!!)\[([^\[\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)", link, text)


def _command_line() -> Iterator[str]:
    yield "# Command line\n"
    yield f"{inspect.cleandoc(mia.help or '')}\n"
    yield "Exit codes: 0 done, 1 something needed is missing (`mia doctor`), 2 input that cannot be used, 130 interrupted.\n"
    for name, command in mia.commands.items():
        inner = click.Context(command, info_name=f"mia {name}")
        yield f"## mia {name}\n"
        yield f"```\n{' '.join([f'mia {name}', *command.collect_usage_pieces(inner)])}\n```\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
        options = [found for param in command.get_params(inner) if (found := param.get_help_record(inner))]
        if options:
            yield "| option | |\n|---|---|"
            yield from (f"| {_code(names)} | {_cell(text)} |" for names, text in options)
            yield ""


def _pipeline() -> Iterator[str]:
    yield "# pipeline.yaml\n"
    yield "Every value has a default, the paper's where the paper has one. A relative path is relative to the file. An unknown"
    yield "key is an error that names the nearest known one. `mia init --all` writes [the whole file](#the-commented-file).\n"
    texts = documentation(PipelineConfig)
    top = [(name, field) for name, field in PipelineConfig.model_fields.items() if not _is_section(field.get_default())]
    yield "| key | default | |\n|---|---|---|"
    yield from (f"| `{name}` | {_code(_shown(field.get_default()))} | {_cell(texts.get(name, ''))} |" for name, field in top)
    yield ""
    for name, field in PipelineConfig.model_fields.items():
        if _is_section(field.get_default()):
            kind = type(field.get_default())
            yield f"## {name}\n"
            yield f"{_about(kind)}\n"
            yield "| key | default | |\n|---|---|---|"
            for key, type_name, default, text in entries(kind):
                yield f"| `{key}` | {_code(default)} | {_cell(text)} {_choices(type_name)} |"
            yield ""
    yield "## The commented file\n"
    yield f"```yaml\n{commented_yaml({'data': {'source': 'rows.json'}, 'model': {'name': 'embedded'}})}```"


def _shown(default: Any) -> Any:
    return default.as_posix() if isinstance(default, Path) else default


def _is_section(default: Any) -> bool:
    return isinstance(default, BaseModel)


def _choices(type_name: str) -> str:
    """The words a setting may be, as `Literal` lists them."""
    words = [word for group in re.findall(r"Literal\[([^\]]*)\]", type_name) for word in re.findall(r"'([^']*)'", group)]
    return f"One of {', '.join(f'`{word}`' for word in words)}." if len(words) > 1 else ""


def _records() -> Iterator[str]:
    yield "# Records and files\n"
    yield "Between the stages lie JSONL files, one record a line, and pictures; each folder has a `manifest.json` with the"
    yield "settings, what it was made from and counts. The classes are in `mia_augment.records` (unknown fields are refused).\n"
    yield "| folder of a run | files |\n|---|---|"
    yield "| `augment/`, `held_out/` | `samples.jsonl`, `skipped.jsonl`, `images/` |"
    yield "| `score/` | `scored.jsonl`, `skipped.jsonl` |"
    yield "| `select/` | `pairs.jsonl`, `dropped.jsonl`, `selection.json` |"
    yield "| `attention/` | `maps.jsonl`, for the report |"
    yield "| `train/` | `adapter/` (or `model/`), `checkpoints/`, `metrics.jsonl`, stored reference log-probs |"
    yield "| `evaluate/` | `evaluation.json`, `predictions.jsonl` |"
    yield "| | `pipeline.json`, `stages.json`, `report.html` |\n"
    for kind in RECORDS:
        yield f"## {kind.__name__}\n"
        yield f"{_about(kind)}\n"
        texts = documentation(kind)
        yield "| field | type | |\n|---|---|---|"
        for name, field in kind.model_fields.items():
            yield f"| `{name}` | {_code(_type_name(field.annotation))} | {_cell(texts.get(name, ''))} |"
        yield ""


def _python() -> Iterator[str]:
    yield "# Python\n"
    yield "What the packages and their folders open to others, each with the first sentence of its documentation. Names are"
    yield "loaded when first used. What is not listed here may change without notice.\n"
    for name in PACKAGES:
        package = name.replace("-", "_")
        src = ROOT / "packages" / name / "src"
        yield f"## {package}\n"
        for stub in sorted((src / package).rglob("__init__.pyi"), key=lambda path: (len(path.parts), path)):
            opened = list(_opened(stub))
            if opened:
                yield f"`from {'.'.join(stub.parent.relative_to(src).parts)} import ..`\n"
                yield "| name | |\n|---|---|"
                yield from (f"| `{shown}` | {_cell(text)} |" for shown, text in opened)
                yield ""


def _opened(stub: Path) -> Iterator[tuple[str, str]]:
    """The names of a stub, each with its parameters if it is a function, and the first paragraph of its docstring."""
    for node in ast.parse(stub.read_text("utf-8")).body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        home = stub.parent / node.module.replace(".", "/")
        file = home.with_suffix(".py") if home.with_suffix(".py").is_file() else home / "__init__.py"
        tree = ast.parse(file.read_text("utf-8"))
        for alias in node.names:
            yield _described(tree, alias.name)


def _described(tree: ast.Module, name: str) -> tuple[str, str]:
    """How a name is shown, and what its docstring, or the text below a constant, says first."""
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            names = (
                [part.arg for part in (*node.args.args, *node.args.kwonlyargs)] if isinstance(node, ast.FunctionDef) else None
            )
            text = (ast.get_docstring(node) or "").partition("\n\n")[0]
            return (name if names is None else f"{name}({', '.join(names)})"), text.removesuffix(": ::")
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = after.value if isinstance(after, ast.Expr) else None
            said = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
            return name, inspect.cleandoc(said).partition("\n\n")[0]
    return name, ""


def _about(kind: type[BaseModel]) -> str:
    """Its own docstring, not an inherited one."""
    return inspect.cleandoc(kind.__dict__.get("__doc__") or "")


def _type_name(annotation: Any) -> str:
    """As it would be written: `list[Region]`, `float | None`."""
    if annotation is type(None):
        return "None"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is typing.Literal:
        return " | ".join(map(repr, arguments))
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if a is Ellipsis else _type_name(a) for a in arguments)}]"
    return getattr(annotation, "__name__", str(annotation))


def _changes() -> Iterator[str]:
    yield "# Changes\n"
    for name in PACKAGES:
        text = (ROOT / "packages" / name / "CHANGELOG.md").read_text("utf-8")
        yield re.sub(r"^# Changelog", f"# {name}", text).replace("\n## ", "\n### ").replace("# mia-", "## mia-", 1)


def _code(value: Any) -> str:
    """In code style, as YAML writes it."""
    shown = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    shown = shown.removesuffix("...\n").strip()
    return f"`{shown}`" if shown else "(empty)"


def _cell(text: str) -> str:
    """On one line, with what stands outside of code made harmless."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [part.replace("|", "\\|").replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Fail where a package has no page."""
    shown = {page.file.src_uri for page in nav.pages}
    missing = [name for name in PACKAGES if f"packages/{name}.md" not in shown]
    if missing:
        raise ValueError(f"mkdocs.yml: expected a page for every package, {missing} have none")
    return nav
