"""Protects the shape of the source: imports that point up the data flow, names that load without
JAX, files that fit a reader's head, and nothing that runs code found in data."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "qhat"
FILES = sorted(SOURCE.rglob("*.py"))

# From top to bottom. A module may import from its own level and from the levels above it.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "files", "_lazy", "_version", "axis", "actions", "masks", "memory", "runtime"),
    ("environments", "robots"),
    ("demonstrations",),
    ("exploration",),
    ("replay",),
    ("heads", "joints", "policies", "bonuses", "targets"),
    ("networks",),
    ("recipe", "recipes", "presets", "schedules", "config", "arguments"),
    ("learner",),
    ("training",),
    ("agent",),
    ("evaluation", "outcomes", "policy", "statistics"),
    ("runs", "run", "stage", "beginning", "experiment"),
    ("report",),
    ("export",),
    ("cli", "__main__"),
    ("__init__",),
)
RANK = {name: rank for rank, level in enumerate(LEVELS) for name in level}
LONGEST = 350
RUNS_DATA = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def part_of(path: Path) -> str:
    """The first name below `qhat`: `replay` for replay/ring.py."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of every import of a file, also of those inside functions."""
    package = ("qhat", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *([node.module] if node.module else [])))
            if module == "qhat":
                yield from (f"qhat.{alias.name}" for alias in node.names)
            else:
                yield module


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for module in imported_modules(path):
        first, _, rest = module.partition(".")
        if first == "qhat":
            name = rest.split(".")[0]
            is_module = (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists()
            parts.add(name if name and is_module else "__init__")
    return parts


def called_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_every_module_has_a_place_in_the_data_flow():
    assert FILES
    unknown = sorted({part_of(path) for path in FILES} - RANK.keys())
    assert not unknown, f"{unknown} have no level: give each one a place in LEVELS"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_up_the_data_flow(path: Path):
    rank = RANK[part_of(path)]
    down = {part for part in imported_parts(path) if part != "_lazy" and RANK[part] > rank}
    assert not down, f"{name_of(path)} imports {sorted(down)}, which come after it"


def test_the_import_reader_sees_lazy_and_relative_imports(tmp_path: Path, monkeypatch):
    (tmp_path / "replay").mkdir()
    (tmp_path / "cli").mkdir()
    (tmp_path / "learner.py").touch()
    (tmp_path / "policies.py").touch()
    source = "from ..learner import Learner\ndef f():\n    from qhat import cli, policies\n"
    path = tmp_path / "replay" / "ring.py"
    path.write_text(source, encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    assert imported_parts(path) == {"learner", "cli", "policies"}


@pytest.mark.parametrize("module", ["qhat", "qhat.recipe", "qhat.recipes", "qhat.errors"])
def test_names_load_without_jax(module: str):
    heavy = "{'jax', 'equinox', 'optax', 'gymnasium', 'gymnax', 'matplotlib'}"
    code = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name_of(path)} has {lines} lines; split it by what it is about"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_code_is_run_from_data(path: Path):
    roots = {module.split(".")[0] for module in imported_modules(path)}
    assert not roots & RUNS_DATA
    calls = set(called_names(path))
    assert not calls & {"eval", "exec", "builtins.eval", "builtins.exec", "torch.load"}
    assert not {call for call in calls if call.startswith("yaml.") and "load" in call}
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8")
