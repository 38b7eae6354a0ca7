"""`qhat`: dispatches a command line to its command. Slow modules are imported only after parsing."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from qhat._version import __version__
from qhat.cli.warned import Warned, printable
from qhat.system.errors import QhatError, UsageError, in_shell, near_miss

COMMANDS = {
    "train": "train an agent and leave a run folder",
    "learn": "learn from recorded steps alone, and leave a run folder",
    "evaluate": "score a run in fresh episodes of the reference environment",
    "distil": "teach a policy that sees a robot's own sensors what a run with more of them learned",
    "play": "film a run's policy",
    "export": "export a run's policy for a robot: ONNX, a runner without JAX, a parity proof",
    "plot": "plot a run's learning curve",
    "compare": "compare runs: scores with intervals, curves, probabilities of improvement",
    "report": "write an HTML report about runs: score, warnings, curves, film, settings",
    "recipes": "list the algorithms and their values on the axes",
    "envs": "list the environments",
    "benchmark": "train a suite over several seeds and compare it with published and pinned results",
    "tune": "tune an environment's hyperparameters and write them as a preset file",
    "cluster": "say what a Ray cluster has, and what runs there: qhat cluster status",
    "doctor": "check this machine, an environment, or recorded steps",
}

USAGE = """\
qhat {version}: deep Q-networks for robots and discrete control, in seconds.

usage: qhat COMMAND [options]        (qhat COMMAND --help explains a command)

{commands}

start with:  qhat train CartPole-v1
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad usage, 1 a failure, 130/143 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path and os.getcwd() not in sys.path:
        # As with `python -m qhat`: my_module of gym:my_module:MyRobot-v0 may be a file in this folder.
        sys.path.append(os.getcwd())
    try:
        name = _command(words)
        if name is None:
            sys.exit(0)
        with warnings.catch_warnings():
            warnings.showwarning = Warned()
            sys.exit(importlib.import_module(f"qhat.cli.{name}").run(words[1:]))
    except QhatError as error:
        print(f"qhat: {printable(in_shell(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)


def _command(words: list[str]) -> str | None:
    """Return the command that was typed; print help or the version and return `None` where those were."""
    if not words or words[0] in ("-h", "--help", "help"):
        listing = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        print(USAGE.format(version=__version__, commands=listing), end="")
        return None
    if words[0] in ("-V", "--version"):
        print(f"qhat {__version__}")
        return None
    if words[0] not in COMMANDS:
        raise UsageError(
            f"Command '{words[0]}' is not known; expected one of {', '.join(COMMANDS)}."
            + near_miss(words[0], COMMANDS)
        )
    return words[0]
