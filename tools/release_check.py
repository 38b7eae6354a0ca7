"""Build the wheel and the sdist, and try the wheel as a user has it: `make package PYTHON=python3.12`.

    python tools/release_check.py [PYTHON]       try the wheel on PYTHON; default: this one
    python tools/release_check.py --another      on the first other version of Python that is supported

The files go to dist/. `twine check` reads them as PyPI does. The wheel is then installed alone, without
extras, into an empty environment outside this folder; there `qhat --version` and a short training work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PINS = ("-c", str(ROOT / "constraints.txt"))
SUPPORTED = ("3.13", "3.12", "3.11")
NEEDED = ("qhat/py.typed", "qhat/reports/report.css", "qhat/deploy/web/page/page.html")
"""Files of the wheel that are no modules, each of another kind."""


def run(*words: str | Path, **options: object) -> str:
    """Run a command, which has to end well, and return what it prints."""
    print("+", *words, flush=True)
    command = [str(word) for word in words]
    done = subprocess.run(command, text=True, capture_output=True, check=False, **options)  # type: ignore
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{done.stderr}release_check: exit status {done.returncode} of {words[0]}")
    return done.stdout


def environment(python: str, folder: Path, *packages: str | Path) -> Path:
    """Make an empty virtual environment with some packages; return its folder of programs."""
    run(python, "-m", "venv", folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    quiet = ("--quiet", "--disable-pip-version-check")
    run(programs / "python", "-m", "pip", "install", *quiet, *PINS, *packages)
    return programs


def build(folder: Path) -> Path:
    """Put a new wheel and sdist into dist/, checked by twine; return the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    programs = environment(sys.executable, folder / "tools", "build", "twine", "hatchling")
    run(programs / "python", "-m", "build", "--no-isolation", "--outdir", DIST, ROOT)
    run(programs / "twine", "check", "--strict", *sorted(DIST.iterdir()))
    (wheel,) = DIST.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    missing = [name for name in NEEDED if name not in names]
    if missing:
        sys.exit(f"release_check: the wheel lacks {', '.join(missing)}")
    return wheel


def attempt(wheel: Path, python: str, folder: Path) -> None:
    """Install the wheel into an empty environment, and train with it."""
    programs = environment(python, folder / "user", wheel)
    # Nothing of this project's settings or sources reaches the user's processes.
    ours = ("PYTHON", "JAX_", "XLA_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    away = {"cwd": folder, "env": env}
    version = run(programs / "qhat", "--version", **away).split()[-1]
    if version != wheel.name.split("-")[1]:
        sys.exit(f"release_check: {wheel.name} says that it is {version}")
    words = ("train", "CartPole-v1", "--steps", "2000", "--run-dir", "run", "--json")
    trained = json.loads(run(programs / "qhat", *words, **away))
    score = json.loads(run(programs / "qhat", "evaluate", "run", "--episodes", "2", "--json", **away))
    print(f"{wheel.name} on {version_of(python)}: trained {trained['step']} steps, scored {score['iqm']}")


def version_of(python: str) -> str | None:
    """Return the version of an interpreter, and nothing where it is none."""
    words = [python, "-c", "import platform, venv, ensurepip; print(platform.python_version())"]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def another() -> str | None:
    """Find a supported Python whose version is not this one's: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in SUPPORTED:
        if minor == "{}.{}".format(*sys.version_info[:2]):
            continue
        kept = [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{minor}.*"))]
        for python in (f"python{minor}", *kept):
            if (version_of(python) or "").startswith(f"{minor}."):
                return python
    return None


def main() -> None:
    """Build, check, install, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("python", nargs="?", default=sys.executable)
    parser.add_argument("--another", action="store_true")
    args = parser.parse_args()
    python = another() if args.another else args.python
    if python is None:
        print("release_check: no second Python from 3.11 to 3.13 is here; trying the wheel on this one")
        python = sys.executable
    if version_of(python) is None:
        sys.exit(f"release_check: '{python}' is no Python that runs; expected a name such as python3.12")
    with tempfile.TemporaryDirectory(prefix="qhat-release-") as folder:
        attempt(build(Path(folder)), python, Path(folder))


if __name__ == "__main__":
    main()
