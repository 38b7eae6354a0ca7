"""`qhat export RUN --cpp`: a C++ program that runs the exported graph with onnxruntime.

The texts are the files beside this one; the observation's and the action's sizes and types are inserted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from qhat._version import __version__
from qhat.deploy.target import ExportTarget
from qhat.runtime import kept_by
from qhat.system.errors import require
from qhat.system.files import read_json

FILES = ("policy.cpp", "CMakeLists.txt")
TYPES = {
    "float32": "float", "float64": "double", "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""C++ types of NumPy's."""


@dataclasses.dataclass(frozen=True)
class Cpp(ExportTarget):
    """A C++ program that runs the policy with onnxruntime."""

    name: ClassVar[str] = "cpp"

    def require(self, config: Mapping[str, Any]) -> None:
        return

    def check(self, about: Mapping[str, Any]) -> None:
        require_plain(about)

    def write(self, folder: Path) -> Path:
        return write_program(folder)

    def next_step(self, path: Path) -> str:
        return f"cmake -S {path} -B build && cmake --build build && build/policy {path.parent}/policy.onnx"


def require_plain(about: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a policy that takes more than one array."""
    name = about["environment"]["id"]
    require(
        about["network"][0]["op"] != "parts",
        f"--cpp writes a program for one array of numbers, and the observation of '{name}' has"
        " several pictures, or pictures and numbers; expected one array. docs/export-format.md describes"
        " the graph.",
    )
    require(
        not about["actions"]["masked"],
        f"--cpp writes a program without masks, and '{name}' has masks of legal actions; expected an"
        " environment without masks. docs/export-format.md describes the graph's input 'mask'.",
    )


def write_program(folder: Path) -> Path:
    """Write the folder `cpp` into an exported folder. Raises `UsageError` if it cannot run the policy."""
    about = read_json(folder / "policy.json")
    require_plain(about)
    target, words = folder / "cpp", _words(about)
    target.mkdir(exist_ok=True)
    for file in FILES:
        text = (resources.files(__name__) / file).read_text(encoding="utf-8")
        for name, word in words.items():
            # A line that is only a word without a value goes.
            text = text.replace(f"@{name}@\n", f"{word}\n" if word else "").replace(f"@{name}@", word)
        (target / file).write_text(text, encoding="utf-8")
    return target


def _words(about: Mapping[str, Any]) -> dict[str, str]:
    observation, actions, network = about["observation"], about["actions"], about["network"]
    shape, number = [1, *observation["shape"]], TYPES[observation["dtype"]]
    inputs, outputs = ["observation"], ["action"]
    words = {
        "NAME": " ".join(about["name"].split()).rstrip("\\"),
        "VERSION": __version__,
        "SIZE": str(math.prod(shape)),
        "RANK": str(len(shape)),
        "SHAPE": _listed(shape),
        "NUMBER": number,
        "ACTION": TYPES[actions["dtype"]],
        "COUNT": str(math.prod(actions["shape"])),
        "RESET": "", "STATE": "", "KEEP": "", "MEMBERS": "",
    }  # fmt: skip
    kept, keeper = kept_by(network)
    if kept:
        sizes, kind = (
            ([1, *keeper["shape"]], number) if kept == "frames" else ([1, keeper["units"]], "float")
        )
        inputs, outputs = [*inputs, kept, "start"], [*outputs, f"{kept}_next"]
        tensor = "Ort::Value::CreateTensor"
        words |= {
            "RESET": "  void Reset() { start_ = true; }  // an episode begins",
            "STATE": f"    in.push_back({tensor}<{kind}>(cpu, {kept}_.data(), {kept}_.size(),"
            " kKept.data(), kKept.size()));\n"
            f"    in.push_back({tensor}<bool>(cpu, &start_, 1, kKept.data(), 1));",
            "KEEP": f"    std::copy_n(out[1].GetTensorData<{kind}>(), {kept}_.size(), {kept}_.begin());\n"
            "    start_ = false;",
            "MEMBERS": f"  static constexpr std::array<int64_t, {len(sizes)}>"
            f" kKept{{{_listed(sizes)}}};\n"
            f"  std::array<{kind}, {math.prod(sizes)}> {kept}_{{}};\n  bool start_ = true;",
        }
    return {
        **words,
        "INPUTS": str(len(inputs)),
        "OUTPUTS": str(len(outputs)),
        "INPUTNAMES": _quoted(inputs),
        "OUTPUTNAMES": _quoted(outputs),
    }


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
