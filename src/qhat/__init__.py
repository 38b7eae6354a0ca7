"""qhat: deep Q-networks for robots and discrete control.

    qhat.train(env, recipe)    train one or more seeds, and return the run
    qhat.learn(data, env)      the same from recorded steps alone: nothing acts
    qhat.evaluate(run)         score a run in fresh greedy episodes, with an interval over seeds
    qhat.compare(runs)         compare runs: scores, intervals, which one is probably better
    qhat.distil(run, see)      teach a policy that sees other groups of observations what a run learned
    qhat.play(run)             film the policy
    qhat.export(run)           write the policy for a robot, with a proof that it acts the same
    qhat.plot(run)             plot a run's progress
    qhat.report(runs)          write one page about runs: score, warnings, curves, film, settings
    qhat.envs(pattern)         the environments that qhat knows by name
    qhat.doctor(env)           check an environment, or this machine
    qhat.tune(env)             search for an environment's settings, and write them as a preset
    qhat.benchmark(suite)      train a suite over several seeds, and compare with published results
    qhat.recipes               the named algorithms: qhat.recipes.rainbow, qhat.recipes.get("dqn")
    qhat.Agent                 act, remember and replay, for a loop of one's own
    qhat.JaxEnvironment        base class of one's own environment in JAX
    qhat.Mirror                a task's mirror image, from which it is learned too
    qhat.Evaluation            what the `callback` of qhat.train gets after each evaluation
    qhat.Recipe                an algorithm as a value
    qhat.Run                   a run folder and what was trained in it
    qhat.TrainConfig           everything that a training needs to know
    qhat.QhatError             base class of qhat's errors, each one a sentence
    qhat.UsageError            the caller gave something that has no meaning

The same words are the commands of `qhat --help`. Importing qhat imports no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qhat._version import __version__

if TYPE_CHECKING:
    from qhat import recipes
    from qhat.agent.agent import Agent
    from qhat.agent.distil import distil
    from qhat.cli.calls import benchmark, doctor, learn, tune
    from qhat.deploy.export import export
    from qhat.environments.catalogue import envs
    from qhat.environments.jax.single import JaxEnvironment
    from qhat.environments.mirror import Mirror
    from qhat.recipes.config import TrainConfig
    from qhat.recipes.recipe import Recipe
    from qhat.reports.comparison.comparing import compare
    from qhat.reports.plotting import plot
    from qhat.reports.report import report
    from qhat.reports.video import play
    from qhat.runs.callback import Evaluation
    from qhat.runs.run import Run, evaluate
    from qhat.runs.train import train
    from qhat.system.errors import QhatError, UsageError

_HOMES = {
    "Agent": "qhat.agent.agent",
    "Evaluation": "qhat.runs.callback",
    "JaxEnvironment": "qhat.environments.jax.single",
    "Mirror": "qhat.environments.mirror",
    "QhatError": "qhat.system.errors",
    "Recipe": "qhat.recipes.recipe",
    "Run": "qhat.runs.run",
    "TrainConfig": "qhat.recipes.config",
    "UsageError": "qhat.system.errors",
    "benchmark": "qhat.cli.calls",
    "compare": "qhat.reports.comparison.comparing",
    "distil": "qhat.agent.distil",
    "doctor": "qhat.cli.calls",
    "envs": "qhat.environments.catalogue",
    "evaluate": "qhat.runs.run",
    "export": "qhat.deploy.export",
    "learn": "qhat.cli.calls",
    "play": "qhat.reports.video",
    "plot": "qhat.reports.plotting",
    "report": "qhat.reports.report",
    "train": "qhat.runs.train",
    "tune": "qhat.cli.calls",
}

__all__ = [
    "Agent",
    "Evaluation",
    "JaxEnvironment",
    "Mirror",
    "QhatError",
    "Recipe",
    "Run",
    "TrainConfig",
    "UsageError",
    "__version__",
    "benchmark",
    "compare",
    "distil",
    "doctor",
    "envs",
    "evaluate",
    "export",
    "learn",
    "play",
    "plot",
    "recipes",
    "report",
    "train",
    "tune",
]


# Type checkers see the imports above; with this function every misspelled name would pass as `Any`.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first asked for."""
        if name == "recipes":
            return importlib.import_module("qhat.recipes")
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'qhat' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names, which completion offers before they are imported."""
    return sorted(__all__)
