"""Measures of the source tree: `uv run python tests/house/measure.py` prints them, `test_house.py` holds what must stay.

`-v` lists what was counted; `--walks` follows a pipeline.yaml through `mia run` and a sample through scoring (`walks.py`).
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("mia_augment", "mia_attention", "mia_select", "mia_dpo_train", "mia_cli")
REPEATED_FILE_NAMES = frozenset({"__init__.py", "__main__.py", "settings.py", "stage.py"})


def sources() -> dict[str, Path]:
    """Dotted module name -> file, of all packages."""
    found = {}
    for package in PACKAGES:
        src = ROOT / "packages" / package.replace("_", "-") / "src"
        for path in sorted((src / package).rglob("*.py")):
            found[".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def lines() -> int:
    """Source lines of all packages."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources().values())


def crowded_folders(limit: int = 10) -> dict[str, int]:
    """Folders with more than `limit` modules beside each other, `__init__.py` aside."""
    counts = Counter(path.parent for path in sources().values() if path.name != "__init__.py")
    return {folder.relative_to(ROOT).as_posix(): count for folder, count in counts.items() if count > limit}


def repeated_file_names() -> dict[str, list[str]]:
    """File names that stand twice, beside those that may."""
    homes = defaultdict(list)
    for module, path in sources().items():
        if path.name not in REPEATED_FILE_NAMES:
            homes[path.name].append(module)
    return {name: modules for name, modules in homes.items() if len(modules) > 1}


def definitions(path: Path) -> Iterator[str]:
    """Public names defined at the top of a module: functions, classes, constants, types."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        yield from (name for name in names if not name.startswith("_") and name not in {"log", "logger"})


def repeated_names() -> dict[str, list[str]]:
    """Public names with two meanings: defined in two or more modules."""
    homes = defaultdict(list)
    for module, path in sources().items():
        for name in dict.fromkeys(definitions(path)):
            homes[name].append(module)
    return {name: modules for name, modules in sorted(homes.items()) if len(modules) > 1}


def door(module: str) -> str:
    """The package or public folder through which a module is to be imported by other packages."""
    parts = module.split(".")
    return parts[0] if len(parts) == 2 else ".".join(parts[:2])


def opened_by(package: str) -> set[str]:
    """The names that a package or folder exports: its stub's, or those of its `__init__`."""
    path = sources()[package]
    stub = path.with_suffix(".pyi")
    tree = ast.parse((stub if stub.is_file() else path).read_text(encoding="utf-8"))
    return {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def imports_past_the_door() -> list[str]:
    """Imports across packages that do not go through a package or one of its public folders."""
    modules, past = sources(), []
    doors = {name for name, path in modules.items() if path.name == "__init__.py"}
    for module, path in modules.items():
        package = module.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [(node.module, alias.name) for alias in node.names]
            else:
                continue
            for target, name in names:
                if target.split(".")[0] not in PACKAGES or target.split(".")[0] == package:
                    continue
                if target not in doors or target.count(".") > 1 or (name and name not in opened_by(target)):
                    past.append(f"{module}:{node.lineno} imports {name or target} from {target}")
    return past


def sideways_imports() -> list[str]:
    """Imports that break the star: a package other than `mia_cli` that imports one beside `mia_augment`."""
    broken = []
    for module, path in sources().items():
        package = module.split(".")[0]
        if package == "mia_cli":
            continue
        allowed = {package, "mia_augment"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            broken += [f"{module}:{node.lineno} {name}" for name in names if name.split(".")[0] in set(PACKAGES) - allowed]
    return broken


def long_functions(limit: int = 40) -> list[str]:
    """Functions with more than `limit` lines, their docstrings aside."""
    found = []
    for module, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) and first.end_lineno else 0
                size = (node.end_lineno or node.lineno) - node.lineno + 1 - doc
                if size > limit:
                    found.append(f"{module}.{node.name}: {size}")
    return found


def main() -> None:
    if "--walks" in sys.argv:
        import walks  # beside this script

        return walks.main()
    modules = sources()
    by_package = Counter(name.split(".")[0] for name in modules)
    print(f"files {len(modules)}, source lines {lines()}")
    for package in PACKAGES:
        count = sum(len(p.read_text(encoding="utf-8").splitlines()) for n, p in modules.items() if n.split(".")[0] == package)
        print(f"  {package}: {by_package[package]} files, {count} lines")
    print(f"folders with more than 10 modules: {crowded_folders() or 'none'}")
    for title, found in (
        ("file names that stand twice", repeated_file_names()),
        ("public names with two meanings", repeated_names()),
        ("imports past the door", imports_past_the_door()),
        ("imports that break the star", sideways_imports()),
        ("functions over 40 lines", long_functions()),
    ):
        print(f"{title}: {len(found)}")
        if "-v" in sys.argv:
            for entry in found.items() if isinstance(found, dict) else found:
                print("   ", entry)


if __name__ == "__main__":
    main()
