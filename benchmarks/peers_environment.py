"""The peers' own virtual environment, `.venv-bench`, made when it is missing or out of date."""

import json
import os
import platform
import re
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "peers" / "requirements.txt"
FOLDER = HERE.parent / ".venv-bench"


def ensure() -> Path:
    """Return the Python of the peers' environment; install into it first where that is needed."""
    python = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = FOLDER / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if not python.exists() or not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing the peers into {FOLDER.name} ...", file=sys.stderr)
        venv.create(FOLDER, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
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


def required() -> tuple[str, ...]:
    """Return the names of the pinned peers."""
    lines = REQUIREMENTS.read_text().splitlines()
    return tuple(re.split(r"\[|==", line)[0] for line in lines if "==" in line)


def machine() -> str:
    """Describe this machine in a line."""
    import psutil

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def load() -> str:
    """Return the load average of the last minute, where the system has one."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
