"""`qhat learn DATA... --env ENV`: `qhat train` without acting, from recorded steps alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from qhat.axes.training import Logs
from qhat.cli import train
from qhat.cli.parsing import value_of
from qhat.demonstrations.sources import env_of, require_readable
from qhat.recipes import get
from qhat.recipes.presets import NAME as PRESET
from qhat.system.errors import UsageError

RECIPE = "cql"
"""The recipe of `qhat learn` unless another is named."""
FIXED = {
    "--replay-capacity": "replay is as large as the data, or as --training logs:window=500000 says",
    "--training": "nothing acts while it learns",
    "--demos": "it has its data",
}
"""Settings of `qhat train` that it makes itself, and why."""
HELP = f"""\
usage: qhat learn DATA [DATA ...] --env ENV [--recipe {RECIPE}] [--SETTING VALUE ...]

Learn a policy from recorded steps alone, and write a run folder: nothing acts while it learns. A step of
the run is a gradient update on a batch of the data.

DATA is an .npz file or a folder of its arrays, the folder of a LeRobot dataset, a bag of ROS 2 with the
robot's map (BAG.mcap@MAP.yaml), or minari: and the id of a dataset on this machine
(docs/demonstrations.md); several are read in order. Data that have no room in memory are read while it
learns (--training logs:window=500000). ENV plays the run's evaluations; a dataset of Minari's, and a map,
can name it too.

recipes:
  cql   values of actions that were not recorded are pressed down: --behaviour cql:alpha=1
  bcq   only actions that the data would take are chosen and backed up: --behaviour bcq:tau=0.3
  iql   no value of an action that was not recorded is asked for: --behaviour iql:expectile=0.7,beta=3
  bc    imitates the recorded actions: --behaviour clone
  any other recipe, with --training logs

The settings are those of qhat train: qhat train --recipe {RECIPE} --help

next:
  qhat learn car.npz --env MountainCar-v0 --steps 20000 --seeds 5"""


def run(words: Sequence[str]) -> int:
    """Check what can be checked early, then train."""
    if not words or "--help" in words or "-h" in words:
        print(HELP)
        return 0
    return train.run(as_training(words))


def as_training(words: Sequence[str]) -> list[str]:
    """Return the words of `qhat train` that do the same."""
    data = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    rest, env = list(words[len(data) :]), value_of(words, "--env")
    if "--resume" in rest:
        raise UsageError(
            "qhat learn begins a run; expected qhat train ENV --resume --run-dir FOLDER, which continues"
            " every run."
        )
    for flag, why in FIXED.items():
        given = value_of(rest, flag)
        if given is not None and not (flag == "--training" and learns_from_logs(given)):
            raise UsageError(f"{flag} has no meaning in qhat learn: {why}. Leave it out.")
    if not data:
        raise UsageError(
            "qhat learn has no data; expected qhat learn DATA --env ENV, with an .npz file, or minari: and"
            " the id of a dataset."
        )
    for source in data:
        require_readable(source, rewards=False)
    known = next((found for source in data if (found := env_of(source))), None)
    if env is None and known is None:
        raise UsageError(
            f"'{data[0]}' does not name its environment; expected qhat learn {data[0]} --env ENV, the id of"
            " what plays the run's evaluations (qhat envs)."
        )
    name = value_of(rest, "--recipe") or RECIPE
    settings = ["--demos", *data, *_without(rest, "--env")]
    if name == RECIPE and value_of(rest, "--recipe") is None:
        settings += ["--recipe", RECIPE]
    wanted = {"--training": Logs.name, "--num-envs": "1", "--replay-ratio": "1"}
    recipe = None if name == PRESET else get(name)
    if recipe is not None and recipe.demo_share:
        wanted["--demo-share"] = "0"
    if recipe is None or recipe.training.acts:
        settings += [word for flag, value in wanted.items() for word in _unless(rest, flag, value)]
    return [env or known or "", *settings]


def learns_from_logs(training: object) -> bool:
    """Whether a value of the axis `training`, or what it is spelled as, is one of recorded steps alone."""
    return isinstance(training, Logs) or str(training).partition(":")[0] == Logs.name


def _unless(words: Sequence[str], flag: str, value: str) -> list[str]:
    return [] if value_of(words, flag) is not None else [flag, value]


def _without(words: Sequence[str], flag: str) -> list[str]:
    """Return the words without a flag and its value."""
    kept, skips = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if skips:
            skips = False
        elif name == flag:
            skips = not equals
        else:
            kept.append(word)
    return kept
