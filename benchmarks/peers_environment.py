"""The peers' own virtual environments, made where they are missing or out of date.

`python benchmarks/peers_environment.py NAME` makes one: peers, rejax, cluster or offline.
"""

import argparse
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
    "offline": ("requirements-offline.txt", ".venv-bench-offline"),
}
"""Requirements and folder of each environment."""
STAMP = "installed.txt"


def installed(name: str) -> Path | None:
    """Return the Python of one of the peers' environments; `None` where it is missing or out of date."""
    folder = HERE.parent / PLACES[name][1]
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = folder / STAMP
    return python if python.exists() and stamp.exists() and stamp.read_text() == _wanted(name) else None


def ensure(name: str) -> Path:
    """Return the Python of one of the peers' environments; install into it first where that is needed."""
    if (python := installed(name)) is None:
        requirements, folder = HERE / "peers" / PLACES[name][0], HERE.parent / PLACES[name][1]
        print(f"Installing the peers into {folder.name} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        subprocess.run(install, check=True, stdout=sys.stderr)
        (folder / STAMP).write_text(_wanted(name))
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
    lines = _wanted(name).splitlines()
    return tuple(re.split(r"\[|==", line)[0] for line in lines if "==" in line)


def load() -> str:
    """Return the share of the processors that is in use now: what others do beside the benchmark."""
    return f"{psutil.cpu_percent(interval=1.0):.0f}%"


def _wanted(name: str) -> str:
    return (HERE / "peers" / PLACES[name][0]).read_text()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(PLACES))
    print(ensure(parser.parse_args().name))
