"""A policy that continues to learn on a robot: this file and NumPy. Copy it; it needs no qhat and no JAX.

    from qhat_learner import Learner
    learner = Learner.load("export/learner.safetensors")

    action = learner.act(observation)
    learner.learn(observation, action, reward, next_observation, terminated, truncated)
    learner.save("learner.safetensors")

Stream Q(λ) (Elsayed, Vasan & Mahmood 2024, arXiv:2410.14606): a step is learned from when it happens, and
then forgotten. Memory does not grow. Python 3.9 or later. `qhat export RUN --learner` writes both files.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
EPSILON, NORM_EPSILON, LIMIT = 1e-8, 1e-5, 10.0
"""Added to variances of observations and returns, and of layers; where normalised observations are cut."""
LARGEST = float(np.finfo(np.float32).max)
"""All numbers fit in a float32, also where it computes in float64: any `load` reads what `save` writes."""
COUNTS = ("observations", "returns", "running", "mean", "variance", "open", "steps")
"""Numbers that the statistics and the trace are made of; `load` and `save` have them in this order."""


class LearnerError(ValueError):
    """A file that is no learner, or a step that cannot be learned from. A sentence."""


class Learner:
    """Q-values of one observation, and what improves them step by step. For one robot, and one thread."""

    def __init__(self, settings: dict[str, Any], arrays: dict[str, np.ndarray], dtype: Any):
        """Use `load`."""
        self.settings, self._type = settings, np.dtype(dtype)
        shapes: list[tuple[int, int]] = [tuple(shape) for shape in settings["layers"]]
        self.size = sum(outputs * (inputs + 1) for outputs, inputs in shapes)
        self.weights: np.ndarray = arrays["weights"].astype(dtype)
        """All weights and biases, one layer after the other."""
        self.trace: np.ndarray = arrays["trace"].astype(dtype)
        """z, of the same size."""
        self._gradient, self._spare = np.zeros_like(self.weights), np.zeros_like(self.weights)
        self._layers, self._slopes = _views(self.weights, shapes), _views(self._gradient, shapes)
        inner = len(shapes) - 1 if settings["layer_norm"] else 0
        self._norms = [arrays[f"norm{index}"].astype(dtype) for index in range(inner)]
        self._mean, self._m2 = arrays["mean"].astype(dtype), arrays["m2"].astype(dtype)
        self._counts: dict[str, Any] = {
            name: arrays["counts"][index].astype(dtype) for index, name in enumerate(COUNTS)
        }
        self.steps = int(arrays["counts"][-1])
        """Steps that were learned from, by the run before too."""
        self._random = np.random.default_rng(0)
        if settings["random"] is not None:
            self._random.bit_generator.state = settings["random"]
        self._commands = None if settings["commands"] is None else np.array(settings["commands"])
        self._start, self._choices = np.array(settings["start"]), settings["choices"]

    @staticmethod
    def load(path: Any, dtype: Any = "float32") -> Learner:
        """Read a file that `qhat export --learner` or `save` wrote.

        Args:
            dtype: `float32` or `float64`, in which it computes.

        Raises:
            LearnerError: the file is no learner, or damaged.
        """
        _need(
            dtype in ("float32", "float64", np.float32, np.float64),
            f"dtype is {dtype!r}; expected float32 or float64.",
        )
        try:
            arrays, settings = _unpacked(Path(path).read_bytes())
            _need(
                settings["format"] == FORMAT,
                f"'{path}' has format {settings['format']}, and this program reads {FORMAT}.",
            )
            _require_sound(settings, arrays, f"'{path}' is damaged")
            return Learner(settings, arrays, dtype)
        except FileNotFoundError:
            raise LearnerError(f"'{path}' is missing; expected a file of qhat export --learner.") from None
        except LearnerError:
            raise
        except Exception as error:
            raise LearnerError(f"'{path}' is no learner, or damaged ({type(error).__name__}).") from None

    def save(self, path: Any) -> None:
        """Write everything: `load` continues with the same bits. An older file stays until the end.

        Raises:
            LearnerError: a setting or a number was changed to what `load` refuses. The older file stays.
        """
        path = Path(path)
        settings = {**self.settings, "random": self._random.bit_generator.state}
        counts = np.array([*(self._counts[name] for name in COUNTS[:-1]), self.steps], np.float64)
        arrays = {"weights": self.weights, "trace": self.trace, "mean": self._mean, "m2": self._m2}
        norms = {f"norm{index}": norm for index, norm in enumerate(self._norms)}
        arrays = {**arrays, "counts": counts, **norms}
        _require_sound(settings, arrays, f"'{path}' was not written")
        new = path.with_name(path.name + ".new")
        with new.open("wb") as file:
            file.write(_packed(arrays, settings))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)

    def q_values(self, observation: Any) -> np.ndarray:
        """Return Q(s, ·), `[factors, choices]`; of scaled rewards, in standard deviations of the return."""
        x = self._read(observation, "observation")
        return self._forward(x, self._counts["observations"], self._mean, self._m2)[0]

    def act(self, observation: Any, explore: bool = True) -> Any:
        """Return the environment's own action: the greedy one, or with probability ε another.

        ε is `settings["epsilon"]`, the run's at the step of these weights.
        """
        choice = np.argmax(self.q_values(observation), axis=1)
        if explore and self._random.random() < self.settings["epsilon"]:
            choice = np.array([self._random.integers(count) for count in self._choices])
        return self._to_env(choice)

    def learn(
        self,
        observation: Any,
        action: Any,
        reward: Any,
        next_observation: Any,
        terminated: Any,
        truncated: Any = False,
    ) -> float:
        """Learn from a step, which follows the last one unless that ended its episode. Return its error δ.

        Args:
            action: as `act` returns it; for a joint the nearest command counts.
            reward: a number.
            terminated: the task ended, so the value of `next_observation` is 0.
            truncated: a time limit or a person ended the episode; `next_observation` keeps its value.

        Raises:
            LearnerError: numbers that are not finite or too large to square, a wrong shape or type, no
                action. Nothing changes, and the episode stays open: `end_episode` if it ended.
        """
        before = self._read(observation, "observation")
        after = self._read(next_observation, "next_observation")
        chosen = self._from_env(action)
        ends = _flag(terminated, "terminated"), _flag(truncated, "truncated")
        paid = _numbers(reward)
        fits = paid is not None and paid.shape == () and _fits(paid)
        _need(fits, f"reward is {reward!r}; expected a finite number. Nothing was learned.")
        with np.errstate(all="ignore"):
            return self._learn(before, chosen, self._type.type(np.float32(paid)), after, *ends)

    def _learn(
        self, before: np.ndarray, chosen: np.ndarray, reward: Any, after: np.ndarray,
        terminated: bool, truncated: bool,
    ) -> float:  # fmt: skip
        """Compute what a step changes; then change it, if it is finite."""
        ended, settings = terminated or truncated, self.settings
        counts = self._scale(reward, ended)
        rows = [before, after] if ended else [before]
        counts["observations"], mean, m2 = self._include(rows)
        statistics = counts["observations"], mean, m2
        far = np.square(after - mean).sum() if settings["normalise"] else 0
        _need(
            _all_fit(*counts.values(), m2.sum(), far),
            "a number of this step is too large to square as a float32. Nothing was learned.",
        )
        if settings["scale_rewards"]:
            reward = reward / np.sqrt(counts["variance"] + self._type.type(EPSILON))

        # δ = r/σ + γ·V(s') − Q(s, a)
        gamma = self._type.type(settings["gamma"])
        q, inner = self._forward(before, *statistics)
        each = np.arange(len(chosen))
        value = q[each, chosen].mean()
        ahead = 0.0 if terminated else gamma * self._forward(after, *statistics)[0].max(axis=1).mean()
        error = reward + self._type.type(ahead) - value

        # z ← γλ·z + ∇Q(s, a)
        self._backward(inner, each * q.shape[1] + chosen)
        decay = gamma * self._type.type(settings["trace_decay"]) if counts["open"] else 0
        trace = np.multiply(self.trace, decay, out=self._spare)
        trace += self._gradient

        # θ ← θ + α·δ·z
        rate, size = self._type.type(settings["learning_rate"]), np.abs(trace).sum()
        bound = settings["kappa"] * max(abs(error), 1) * size
        step = rate / max(rate * self._type.type(bound), 1) * error
        weights = np.multiply(trace, step, out=self._gradient)
        weights += self.weights
        _need(
            _all_fit(error * error, size, weights.sum()),
            f"the error of step {self.steps:,} is {error}, or its trace too large. Nothing was learned.",
        )

        best, cut = q.max(axis=1), settings["cut"]
        loss = (best - q[each, chosen]).mean()
        if cut is not None and loss > self._type.type(cut) * np.abs(best).mean():
            trace[:] = 0
        counts["open"] = self._type.type(not ended)
        self.weights[:] = weights
        self.trace, self._spare = trace, self.trace
        self._counts, self._mean, self._m2 = counts, mean, m2
        self.steps += 1
        return float(error)

    def end_episode(self) -> None:
        """End the episode as truncated, where a robot stops without a last step."""
        self._counts["open"] = self._counts["running"] = self._type.type(0)

    def _read(self, observation: Any, name: str) -> np.ndarray:
        x, shape = _numbers(observation), tuple(self.settings["shape"])
        if x is None:
            raise LearnerError(f"{name} is {str(observation)[:80]!r}; expected numbers.")
        _need(x.shape == shape, f"{name} has shape {x.shape}; expected {shape}.")
        _need(_fits(x), f"{name} has numbers that are not finite. Nothing was learned.")
        return x.astype(np.float32).astype(self._type).ravel()

    def _from_env(self, action: Any) -> np.ndarray:
        """Return the choice of each factor; of a joint, that of the nearest command."""
        given, count, commands = _numbers(action), len(self._choices), self._commands
        choice = np.full(count, -1)
        shapes: list[Any] = [tuple(self.settings["action_shape"])]
        shapes += [] if self.settings["kind"] == "discrete" else [(count,)]
        shapes += [()] if commands is not None and count == 1 else []
        if given is not None and given.dtype.kind != "b" and given.shape in shapes and _fits(given):
            flat = given.reshape(-1, 1).astype(float)
            if commands is not None:
                low, high = (end(commands, axis=1, keepdims=True) for end in (np.min, np.max))
                # A command in another type of numbers is rounded.
                slack = 1e-5 * np.maximum(high - low, np.abs(high))
                inside = ((flat >= low - slack) & (flat <= high + slack)).all()
                choice = np.abs(commands - flat).argmin(axis=1) if inside else choice
            else:
                choice = flat[:, 0] - self._start
        good = ((choice >= 0) & (choice < self._choices) & (choice == np.floor(choice))).all()
        _need(bool(good), f"action is {action!r}; expected one that `act` returns. Nothing was learned.")
        return choice.astype(int)

    def _to_env(self, choice: np.ndarray) -> Any:
        if self._commands is not None:
            chosen = self._commands[np.arange(len(choice)), choice]
            return chosen.astype(self.settings["action_dtype"]).reshape(self.settings["action_shape"])
        moved = choice + self._start
        if self.settings["kind"] == "discrete":
            return int(moved[0])
        return moved.astype(self.settings["action_dtype"]).reshape(self.settings["action_shape"])

    def _include(self, rows: list[np.ndarray]) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return the statistics with more observations (Chan, Golub & LeVeque 1979): count, mean, m2."""
        before = self._counts["observations"]
        if not self.settings["normalise"]:
            return before, self._mean, self._m2
        count = self._type.type(len(rows))
        away = np.stack(rows) - self._mean
        delta = away.sum(axis=0) / count
        within = np.square(away - delta).sum(axis=0)
        total = before + count
        share = count / total
        m2 = self._m2 + (within + share * before * np.square(delta))
        return total, self._mean + share * delta, m2

    def _scale(self, reward: Any, ended: bool) -> dict[str, Any]:
        """Return the counts with a step in the spread of the returns that look back."""
        counts, one = dict(self._counts), self._type.type(1)
        counts["returns"] += one
        running = self._type.type(self.settings["gamma"]) * counts["running"] + reward
        away = running - counts["mean"]
        counts["mean"] += away / counts["returns"]
        square = away * (running - counts["mean"])
        if counts["returns"] > 1:
            counts["variance"] += (square - counts["variance"]) / (counts["returns"] - one)
        counts["running"] = self._type.type(0) if ended else running
        _need(
            _all_fit(square), f"reward is {reward}, too large to square as a float32. Nothing was learned."
        )
        return counts

    def _forward(self, x: np.ndarray, count: Any, mean: Any, m2: Any) -> tuple[np.ndarray, list[Any]]:
        """Return Q by the statistics of observations, and what `_backward` takes of every layer."""
        if self.settings["normalise"]:
            variance = m2 / max(count, 1) if count > 0 else np.ones_like(m2)
            x = np.clip((x - mean) / np.sqrt(variance + self._type.type(EPSILON)), -LIMIT, LIMIT)
        x, inner = x.astype(np.float32).astype(self._type), []
        last = len(self._layers) - 1
        for index, (weight, bias) in enumerate(self._layers):
            y, spread, centred = weight @ x + bias, None, None
            if index < last:
                if self._norms:
                    centred = y - y.mean()
                    spread = 1 / np.sqrt(np.square(centred).mean() + self._type.type(NORM_EPSILON))
                    y = centred * spread * self._norms[index][0] + self._norms[index][1]
                y = np.maximum(y, 0)
            inner.append((x, centred, spread, y))
            x = y
        return x.reshape(len(self._choices), -1), inner

    def _backward(self, inner: list[Any], outputs: np.ndarray) -> None:
        """Set the gradient of the mean of some outputs; scales and offsets of norms do not learn."""
        slope = np.zeros(self._layers[-1][1].shape, self._type)
        slope[outputs] = 1 / len(outputs)
        for index in range(len(inner) - 1, -1, -1):
            x, centred, spread, y = inner[index]
            if index < len(inner) - 1:
                slope = slope * (y > 0)
                if centred is not None:
                    slope = slope * self._norms[index][0]
                    unit = centred * spread
                    slope = spread * (slope - slope.mean() - unit * (slope * unit).mean())
            np.multiply(slope[:, None], x, out=self._slopes[index][0])
            self._slopes[index][1][:] = slope
            slope = slope @ self._layers[index][0]


def _views(flat: np.ndarray, shapes: list[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the weights `[outputs, inputs]` and the bias of every layer, as views."""
    views, at = [], 0
    for outputs, inputs in shapes:
        end = at + outputs * inputs
        views.append((flat[at:end].reshape(outputs, inputs), flat[end : end + outputs]))
        at = end + outputs
    return views


def _packed(arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> bytes:
    """Return the bytes of a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"settings": json.dumps(settings)}}
    parts, at = [], 0
    for name, value in arrays.items():
        data = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        kind = f"F{8 * value.dtype.itemsize}"
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _unpacked(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the settings in the bytes of such a file."""
    first = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:first].decode())
    settings, arrays = json.loads(header.pop("__metadata__")["settings"]), {}
    for name, entry in header.items():
        kind = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        begin, end = entry["data_offsets"]
        _need(0 <= begin <= end <= len(data) - first, "a tensor is not where it should be.")
        arrays[name] = np.frombuffer(data[first + begin : first + end], kind).reshape(entry["shape"])
    return arrays, settings


def _require_sound(settings: dict[str, Any], arrays: dict[str, np.ndarray], what: str) -> None:
    """Raise where a learner would fail when it moves: settings or tensors of no meaning."""
    try:
        wrong = next((name for name, good in _checks(settings, arrays) if not good), None)
    except Exception as error:
        raise LearnerError(f"{what}: fields are missing or have no meaning ({error!r}).") from None
    _need(wrong is None, f"{what}: '{wrong}' is not what a learner has.")


def _checks(settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, bool]]:
    """Yield the name of a setting or tensor, and whether it can be learned with."""
    for name in ("gamma", "trace_decay", "epsilon"):
        yield name, _number(settings[name]) and 0 <= settings[name] <= 1
    for name in ("learning_rate", "kappa"):
        yield name, _number(settings[name]) and settings[name] > 0
    cut = settings["cut"]
    yield "cut", cut is None or (_number(cut) and cut >= 0)
    for name in ("scale_rewards", "normalise", "layer_norm"):
        yield name, type(settings[name]) is bool

    shape, layers, choices = settings["shape"], settings["layers"], settings["choices"]
    yield "shape", _wholes(shape, 1)
    yield "layers", len(layers) > 0 and all(_wholes(layer, 1) and len(layer) == 2 for layer in layers)
    widths = [math.prod(shape), *(outputs for outputs, _ in layers)]
    yield "layers", [inputs for _, inputs in layers] == widths[:-1]
    yield "choices", _wholes(choices, 1) and len(set(choices)) == 1 and sum(choices) == widths[-1]
    kind, commands, start = settings["kind"], settings["commands"], settings["start"]
    yield "kind", kind in ("discrete", "multi_discrete", "joints") and len(choices) >= 1
    yield "action_dtype", isinstance(settings["action_dtype"], str)
    dtype, joints = np.dtype(settings["action_dtype"]), kind == "joints"
    yield "action_dtype", dtype.kind in ("fiub" if joints else "iu")
    form = settings["action_shape"]
    yield "action_shape", _wholes(form, 0) and math.prod(form) == len(choices) and len(form) <= 32
    yield "action_shape", kind != "discrete" or len(form) == 0
    yield "start", _wholes(start, -(2**62)) and len(start) == len(choices)
    if not joints:
        ends = np.iinfo(dtype)
        yield "start", ends.min <= min(start) and max(start) + choices[0] <= min(ends.max, 2**62) + 1
    yield "commands", joints == (commands is not None)
    for row in commands or []:
        yield "commands", len(row) == choices[0] and all(map(_number, row))
    yield "commands", not joints or len(commands) == len(choices)
    random = settings["random"]
    if random is not None:
        np.random.default_rng(0).bit_generator.state = random

    size = (sum(outputs * (inputs + 1) for outputs, inputs in layers),)
    shapes: dict[str, tuple[int, ...]] = {"weights": size, "trace": size, "counts": (len(COUNTS),)}
    shapes["mean"] = shapes["m2"] = (widths[0],) if settings["normalise"] else (0,)
    if settings["layer_norm"]:
        shapes.update({f"norm{index}": (2, width) for index, width in enumerate(widths[1:-1])})
    yield "tensors", set(arrays) == set(shapes)
    for name, expected in shapes.items():
        yield name, arrays[name].shape == expected and _fits(arrays[name])
    yield "m2", bool((arrays["m2"] >= 0).all())
    counts = {name: arrays["counts"][index] for index, name in enumerate(COUNTS)}
    for name in ("observations", "returns", "steps"):
        yield f"counts ({name})", counts[name] >= 0 and counts[name] % 1 == 0
    yield "counts (variance)", counts["variance"] >= 0
    yield "counts (open)", counts["open"] in (0, 1)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST


def _wholes(values: Any, least: int) -> bool:
    return type(values) in (list, tuple) and all(type(one) is int and one >= least for one in values)


def _numbers(value: Any) -> np.ndarray | None:
    """Return an array of numbers; none if it is something else."""
    try:
        array = np.asarray(value)
    except Exception:
        return None
    return array if array.dtype.kind in "fiub" else None


def _flag(value: Any, name: str) -> bool:
    given = _numbers(value)
    good = given is not None and given.shape == () and given in (0, 1)
    _need(good, f"{name} is {value!r}; expected True or False. Nothing was learned.")
    return bool(given)


def _all_fit(*numbers: Any) -> bool:
    return all(abs(number) <= LARGEST for number in numbers)


def _fits(value: Any) -> bool:
    """Whether all numbers are finite as a float32."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.asarray(value).astype(np.float32, copy=False)).all())


def _need(condition: bool, sentence: str) -> None:
    if not condition:
        raise LearnerError(sentence)
