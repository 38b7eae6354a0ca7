"""The peers' own virtual environments, made where they are missing or out of date."""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
PLACES = {
    "peers": ("requirements.txt", ".venv-bench"),
    "rejax": ("requirements-rejax.txt", ".venv-bench-rejax"),
    "cluster": ("requirements-cluster.txt", ".venv-bench-cluster"),
}
"""Requirements and folder of each environment."""


def ensure(name: str) -> Path:
    """Return the Python of one of the peers' environments; install into it first where that is needed."""
    requirements, folder = HERE / "peers" / PLACES[name][0], HERE.parent / PLACES[name][1]
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = folder / "installed.txt"
    wanted = requirements.read_text()
    if not python.exists() or not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing the peers into {folder.name} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        subprocess.run(install, check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    return python


def versions(python: Path | str, *packages: str) -> dict[str, str]:
    """Return the installed versions of packages, and of Python itself, as `python` sees them."""
    code = (
        "import importlib.metadata as m, json, platform, sys;"
        "print(json.dumps({'Python': platform.python_version(),"
        " **{name: m.version(name) for name in sys.argv[1:]}}))"
    )
    done = subprocess.run([str(python), "-c", code, *packages], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def required(name: str) -> tuple[str, ...]:
    """Return the names of the pinned peers of an environment."""
    lines = (HERE / "peers" / PLACES[name][0]).read_text().splitlines()
    return tuple(re.split(r"\[|==", line)[0] for line in lines if "==" in line)


def load() -> str:
    """Return the share of the processors that is in use now: what others do beside the benchmark."""
    return f"{psutil.cpu_percent(interval=1.0):.0f}%"
