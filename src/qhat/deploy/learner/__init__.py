"""`qhat export RUN --learner`: a policy that continues to learn with NumPy, from each step of a robot.

qhat_learner.py is the program, beside this file; learner.safetensors has the weights, and all else that it
needs. policy.json says under `stream` how the run learned.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qhat import runtime
from qhat.deploy.target import ExportTarget
from qhat.system.errors import UsageError, require, setting
from qhat.system.files import read_json

PROGRAM, STATE = "qhat_learner.py", "learner.safetensors"
OPS = ("normalise", "flatten", "dense", "layer_norm", "relu")
"""What the program can take the gradient of."""


CARD = f"""
## It can continue to learn

```python
from qhat_learner import Learner  # the file in this folder; it needs only NumPy

learner = Learner.load("{STATE}")
action = learner.act(observation)  # explores; explore=False does not
learner.learn(observation, action, reward, next_observation, terminated, truncated)
learner.save("{STATE}")
```
"""
"""What the card of a folder with a learner says of it."""


@dataclasses.dataclass(frozen=True)
class Learner(ExportTarget):
    """A program that continues stream Q(λ) with NumPy."""

    name: ClassVar[str] = "learner"

    def require(self, config: Mapping[str, Any]) -> None:
        training = config["recipe"].get("training", {"name": "replay"})["name"]
        require(
            training == "stream",
            "--learner writes a program that learns from each step without replay, and the run's training"
            f" is {training}; expected a run of {setting('training', 'stream')}, for example the recipe"
            " stream_q.",
        )

    def check(self, about: Mapping[str, Any]) -> None:
        unknown = [op["op"] for op in about["network"] if op["op"] not in OPS]
        require(
            not unknown,
            f"--learner writes a program for dense layers, and the network has '{''.join(unknown[:1])}';"
            " expected no torso, stacks or pictures.",
        )
        require(
            about["recipe"]["merge"]["name"] == "plain",
            "--learner writes a program for one output layer, and the network has dueling streams, which an"
            f" export joins; expected {setting('merge', 'plain')}.",
        )
        recipe, choices = about["recipe"], about["actions"]["choices"]
        require(
            recipe["policy"]["name"] == "greedy" and not about["actions"]["masked"],
            "--learner writes a program with the largest value of all actions as its target; expected"
            f" {setting('policy', 'greedy')}, and an environment without masks.",
        )
        require(
            about["stream"]["epsilon"] is not None,
            f"--learner writes a program that explores with ε, and the run's explore is"
            f" {recipe['explore']['name']}; expected {setting('explore', 'epsilon')}.",
        )
        require(
            len(set(choices)) == 1 and not about["actions"].get("joint"),
            f"--learner writes a program with as many choices for every factor, and there are {choices};"
            f" expected one number, and {setting('joints', 'together')}.",
        )
        dense = [index for index, op in enumerate(about["network"]) if op["op"] == "dense"]
        require(
            "entries" not in about["observation"] and len(dense) > 0,
            "--learner writes a program for one array of numbers; expected no dictionary, tuple or Discrete"
            " observation.",
        )

    def write(self, folder: Path) -> Path:
        return write_learner(folder)

    def next_step(self, path: Path) -> str:
        return f'python -c "from {path.stem} import Learner; help(Learner)"    # in {path.parent}'


def write_learner(folder: Path) -> Path:
    """Write the program and its first state into an exported folder; return the program."""
    from qhat.deploy.learner.qhat_learner import FORMAT, LearnerError
    from qhat.deploy.learner.qhat_learner import Learner as Program

    about = read_json(folder / runtime.ABOUT)
    tensors = runtime._tensors(folder / runtime.WEIGHTS, about)
    ops, actions, stream = about["network"], about["actions"], about["stream"]
    layers = [(tensors[op["weight"]], tensors[op["bias"]]) for op in ops if op["op"] == "dense"]
    norms = [
        np.stack([tensors[op["scale"]], tensors[op["offset"]]]) for op in ops if op["op"] == "layer_norm"
    ]
    if norms and len(norms) != len(layers) - 1:
        raise UsageError("--learner writes a program with a layer norm in every hidden layer, or in none.")
    first = ops[0] if ops[0]["op"] == "normalise" else None
    returns = stream.pop("returns")
    counts = [stream.pop("observations"), returns["count"], 0.0, returns["mean"], returns["variance"], 0.0]
    weights = np.concatenate([part.ravel() for layer in layers for part in layer])
    m2 = stream.pop("m2")
    arrays = {
        "weights": weights,
        "trace": np.zeros_like(weights),
        "mean": np.zeros(0, np.float32) if first is None else tensors[first["mean"]].ravel(),
        "m2": np.zeros(0, np.float32) if m2 is None else np.array(m2, np.float32),
        "counts": np.array([*counts, returns["count"]]),
        **{f"norm{index}": norm for index, norm in enumerate(norms)},
    }
    settings = {
        "format": FORMAT,
        **stream,
        "normalise": first is not None,
        "layer_norm": bool(norms),
        "layers": [list(weight.shape) for weight, _ in layers],
        "shape": about["observation"]["shape"],
        "kind": actions["kind"],
        "choices": actions["choices"],
        "start": actions["start"],
        "commands": actions["commands"],
        "action_dtype": actions["dtype"],
        "action_shape": actions["shape"],
        "random": None,
    }
    try:
        Program(settings, arrays, np.float32).save(folder / STATE)
    except LearnerError as error:
        raise UsageError(str(error)) from None
    with resources.as_file(resources.files(__name__) / PROGRAM) as source:
        shutil.copyfile(source, folder / PROGRAM)
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(CARD)
    return folder / PROGRAM
