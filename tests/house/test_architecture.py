"""Protects the shape of the source: rooms in one order, names that load without JAX, files that fit a
reader's head, and nothing that runs code found in data."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from full import LONG
from places import SOURCE, TESTS

FILES = sorted(SOURCE.rglob("*.py"))

# From the ground up. A room imports only itself and the rooms above it in this list.
ROOMS = (
    "_version", "system", "runtime", "robots", "axes", "environments", "recipes", "demonstrations",
    "engine", "evaluation", "cluster", "runs", "agent", "deploy", "reports", "studies", "chapter", "cli",
    "__main__", "__init__",
)  # fmt: skip
AT_THE_ROOT = {"__init__.py", "__main__.py", "_version.py", "py.typed"}
RANK = {name: rank for rank, name in enumerate(ROOMS)}
LONGEST = 350
ONE_FILE = {"runtime/__init__.py": 1000, "deploy/learner/qhat_learner.py": 470}
"""What robots are given as a single file, and cannot be split."""
RUNS_DATA = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "torch",
    "runpy", "code", "subprocess", "pty", "imp",
}  # fmt: skip
"""Modules that a loader has no use for."""
RUNS = {
    "eval", "exec", "__import__", "compile_command", "read_pickle", "unsafe_load", "full_load",
    "import_string", "load_source", "exec_module", "spec_from_file_location", "literal_eval",
}  # fmt: skip
LOADS = {
    *((numpy, name) for numpy in ("np", "numpy") for name in ("load", "fromfile", "memmap", "loadtxt")),
    ("os", "system"), ("os", "popen"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "compile"),
}  # fmt: skip
"""What reads by names and sizes that the file itself has, or hands words to a shell."""
ALIASED = ("importlib", "import_module")
"""Every call of it is looked at, by its whole name."""
ALLOWED = {
    ("system/lazy.py", "import_module(self._name)"): "JAX and Optax, by names that stand in the file",
    ("cli/main.py", "import_module(f'qhat.cli.{name}')"): "the commands, by the list of them",
    ("environments/catalogue.py", "import_module(self.module)"): "backends, by the table in the file",
    ("environments/jax/by_name.py", "import_module(module)"): "the module that an id names, as gym: ids do",
    ("environments/extras.py", "import_module(module)"): "the libraries of the extras, named by callers",
    (
        "environments/jax/libraries/make.py",
        "import_module(f'qhat.environments.jax.libraries.{entry.backend}')",
    ): "the libraries, by the table of backends",
    ("runtime/qhat_robot/fields.py", "import_module(f'{package}.msg')"): "the robot's messages,"
    " by names that match a pattern",
    ("runtime/qhat_robot/mapping.py", "yaml"): "a SafeLoader, which makes only plain values",
    ("environments/extras.py", "exec_module"): "plotting libraries of this machine, imported when used",
    ("demonstrations/archives.py", "memmap"): "numbers alone, in as many bytes as the file has",
    ("recipes/parts.py", "import_module(module)"): "parts of recipes, by --parts, which only a user types",
    ("__init__.py", "import_module(_HOMES[name])"): "qhat's own modules, by the list of them",
}
"""Where it is harmless, and why."""


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def part_of(path: Path) -> str:
    """The room of a file: `engine` for engine/replay/ring.py."""
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


def runs_data(path: Path) -> Iterator[str]:
    """What in a file can run code that other files hold, or import what they name."""
    for module in imported_modules(path):
        if {module.split(".")[0], module} & RUNS_DATA:
            yield module
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and node.id in (*RUNS, "compile"):
            yield node.id
        elif isinstance(node, ast.Attribute) and (
            node.attr in RUNS or (isinstance(node.value, ast.Name) and (node.value.id, node.attr) in LOADS)
        ):
            yield node.attr
        elif isinstance(node, ast.Constant) and node.value in ("eval", "exec", "__import__"):
            yield str(node.value)
        elif isinstance(node, ast.ImportFrom):
            pairs = {(node.module or "", alias.name) for alias in node.names}
            yield from (
                name for module, name in pairs if name in RUNS or (module, name) in {*LOADS, ALIASED}
            )
        elif isinstance(node, ast.Call):
            yield from _called(node)


def _called(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func).rpartition(".")[2]
    options = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if name == "import_module" and not (node.args and isinstance(node.args[0], ast.Constant)):
        yield f"import_module({', '.join(map(ast.unparse, node.args))})"
    if name == "read_array" and options.get("allow_pickle") != "False":
        yield "read_array"
    if options.get("allow_pickle", "False") != "False":
        yield "allow_pickle"


def test_the_root_has_rooms_and_no_loose_module():
    assert FILES
    assert {part_of(path) for path in FILES} == set(ROOMS)
    assert {path.name for path in SOURCE.iterdir() if path.is_file()} == AT_THE_ROOT


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_to_earlier_rooms(path: Path):
    room = part_of(path)
    later = {part for part in imported_parts(path) if RANK[part] > RANK[room]}
    assert not later, f"{name_of(path)} imports {sorted(later)}, which come after {room} in ROOMS"


def test_the_import_reader_sees_lazy_and_relative_imports(tmp_path: Path, monkeypatch):
    for room in ("store", "cli", "learn"):
        (tmp_path / room).mkdir()
    (tmp_path / "act.py").touch()
    source = "from ..learn import Learner\ndef f():\n    from qhat import cli, act\n"
    path = tmp_path / "store" / "ring.py"
    path.write_text(source, encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    assert imported_parts(path) == {"learn", "cli", "act"}


@pytest.mark.parametrize("module", ["qhat", "qhat.recipes.recipe", "qhat.recipes", "qhat.system.errors"])
def test_names_load_without_jax(module: str):
    heavy = "{'jax', 'equinox', 'optax', 'gymnasium', 'gymnax', 'matplotlib'}"
    code = f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= ONE_FILE.get(name_of(path), LONGEST), (
        f"{name_of(path)} has {lines} lines; split it by what it is about"
    )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_code_is_run_from_data(path: Path):
    found = {what for what in runs_data(path) if (name_of(path), what) not in ALLOWED}
    assert not found, f"{name_of(path)} has {sorted(found)}, which may run what a file says"


def test_what_is_allowed_is_still_there():
    """Or else the list would allow it again some day."""
    there = {(name_of(path), what) for path in FILES for what in runs_data(path)}
    assert there >= ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from marshal import loads", "def f():\n    import dill.source", "import yaml",
        "eval('1')", "x = exec", "__import__('os')", "import builtins\nbuiltins.eval('1')",
        "import numpy as np\nnp.load('x')", "from numpy import load", "import numpy\nnumpy.fromfile('x')",
        "import numpy as np\nnp.lib.format.read_array(x, allow_pickle=True)", "read_array(x)",
        "import torch\ntorch.load('x')", "import importlib\nimportlib.import_module(name)",
        "import importlib\nimportlib.import_module('os' + name)", "import os\nos.system('ls')",
        "import subprocess", "import pandas as pd\npd.read_pickle('x')", "getattr(builtins, 'eval')",
        "from importlib import import_module", "import runpy", "compile('1', 'x', 'eval')",
    ],
)  # fmt: skip
def test_the_scan_sees(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "it.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    assert list(runs_data(tmp_path / "it.py"))


def test_files_of_tests_have_different_names():
    """Pytest imports them by name alone: of two namesakes, one worker could collect only one."""
    names = Counter(path.name for path in TESTS.rglob("*.py"))
    assert names["test_architecture.py"] == 1
    several = {name for name, count in names.items() if count > 1}
    assert several <= {"__init__.py", "conftest.py"}


def test_what_is_left_to_the_full_suite_exists():
    for name in LONG:
        file, _, function = name.partition("::")
        (path,) = TESTS.rglob(file)
        assert f"def {function.partition('[')[0]}(" in path.read_text(), name
