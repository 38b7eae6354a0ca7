"""`python tools/house.py` counts a small made-up package right, and this repository without a complaint."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import house
from places import ROOT

FILES = {
    "src/qhat/__init__.py": "",
    "src/qhat/loose.py": "x = 1\n",
    "src/qhat/system/__init__.py": "",
    "src/qhat/system/errors.py": "class QhatError(Exception):\n    code = 1\n",
    "src/qhat/engine/__init__.py": "",
    "src/qhat/engine/loop.py": "from qhat.system import errors\n\n\ndef told():\n    return errors\n",
    "src/qhat/engine/ring.py": "from .. import loose\nfrom . import loop\nimport jax\n",
    "src/qhat/environments/make.py": "isinstance(1, Environment)\n",
    "src/qhat/runs/train.py": (
        "class Session:\n    field: int = 0\n\n    def __init__(self):\n        self.a, self.b = 1, 2\n"
        "        self.a = 3\n\n    def go(self):\n        from qhat.engine.loop import told\n"
        "        if isinstance(self.a, Environment | HostEnvironment):\n            return told()\n"
        "        return isinstance(self.b, EnvironmentWrapper)\n"
    ),
    "src/qhat/deploy/package/node.py": "import qhat.runs.train\nheldBack = 1\n",
    "tests/test_once.py": "own_seed = seen = 1\n",
}
PAGE = """# Architecture

## From the command to the gradient

The way, a function a line.

1. [`qhat.runs.train.Session.go`](../src/qhat/runs/train.py#L8) begins.
2. [`qhat.engine.loop.told`](../src/qhat/engine/loop.py#L4) goes on, as in [the source](../README.md).
3. `jax.value_and_grad` is JAX's.

## One update

1. [`qhat.engine.loop`](../src/qhat/engine/loop.py): all of it.
2. [`qhat.runs.train.Session.go`](../src/qhat/runs/train.py#L8-L11).
3. [`qhat.runs.train.Session`](../src/qhat/runs/train.py#L1-L8).

## Another list

1. [`qhat.loose`](../src/qhat/loose.py#L1)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / house.PAGE).write_text(PAGE, encoding="utf-8")
    return tmp_path


def test_every_count_of_a_made_up_package(repository: Path) -> None:
    assert house.count(repository) == {
        "rooms": 4,
        "loose_modules": 1,
        "levels": 3,
        "arrows": 3,
        "modules": 9,
        "one_importer": 2,
        "long_files": 0,
        "hops": 2,
        "files_to_gradient": 2,
        "files_of_update": 2,
        "lines_of_update": 5 + 11,
        "dispatches": 1,
        "attributes": 3,
        "banned_in_source": 4,
        "banned_in_tests": 3,
    }


def test_rooms_that_import_each_other_share_a_level() -> None:
    circle = {("engine", "axes"), ("axes", "engine")}
    assert house.levels({("runs", "engine"), ("axes", "system")} | circle) == 3
    assert house.levels({("a", "b"), ("b", "c"), ("a", "c")}) == 3
    assert house.levels(set()) == 1


def test_a_long_file_is_counted(repository: Path) -> None:
    long = "x = 1\n" * (house.LONGEST + 1)
    (repository / "src/qhat/loose.py").write_text(long, encoding="utf-8")
    assert house.count(repository)["long_files"] == 1


def test_a_missing_page_is_named(repository: Path) -> None:
    (repository / house.PAGE).unlink()
    assert house.count(repository)["hops"] == "docs/architecture.md is not there"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("told", {"told"}), ("_told_of", {"told"}), ("OwnSafety", {"own"}), ("SEEN_SEEDS", {"seen"}),
        ("spin_once", {"once"}), ("heldBack", {"held"}), ("unknown", set()), ("threshold", set()),
        ("download", set()), ("at_stage2", set()),
    ],
)  # fmt: skip
def test_banned_words_are_whole_parts_of_names(name: str, words: set[str]) -> None:
    assert house.banned(name) == words


def test_every_kind_of_identifier_is_read() -> None:
    source = (
        "import a.b\nfrom c import d as e\nasync def f(g, *h, i: int = 1, **j):\n    k.l = m(n=1)\n"
        "    try:\n        pass\n    except O as p:\n        pass\n"
        "    match q:\n        case [r, *s] | t:\n            pass\n\n\nclass U:\n    v: int\n"
    )
    names = {name for name, _ in house.identifiers(ast.parse(source))}
    assert names >= set("befghijklmnpqrstUv")


def test_one_command_counts_this_repository() -> None:
    script = str(ROOT / "tools" / "house.py")
    as_json, table = (
        subprocess.run(
            [sys.executable, "-S", script, *options], capture_output=True, text=True, check=True
        ).stdout
        for options in (["--json"], [])
    )
    counts = json.loads(as_json)
    assert list(counts) == list(house.MEANINGS)
    assert counts["loose_modules"] == 0
    assert counts["modules"] > counts["rooms"] > 1
    for name, meaning in house.MEANINGS.items():
        assert f"{counts[name]}  {meaning}" in table
