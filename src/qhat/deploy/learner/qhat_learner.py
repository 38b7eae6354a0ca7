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
import os
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
EPSILON, NORM_EPSILON, LIMIT = 1e-8, 1e-5, 10.0
"""Added to variances of observations and returns, and of layers; where normalised observations are cut."""
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
        self._gradient = np.zeros_like(self.weights)
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
            np.dtype(dtype).name in ("float32", "float64"),
            f"dtype is {dtype!r}; expected float32 or float64.",
        )
        try:
            arrays, settings = _unpacked(Path(path).read_bytes())
            _need(
                settings["format"] == FORMAT,
                f"'{path}' has format {settings['format']}, and this program reads {FORMAT}.",
            )
            made = Learner(settings, arrays, dtype)
            good = made.weights.shape == made.trace.shape == (made.size,)
            _need(good and len(arrays["counts"]) == len(COUNTS), f"'{path}' is damaged: sizes differ.")
            finite = all(np.isfinite(part).all() for part in arrays.values())
            _need(finite, f"'{path}' is damaged: it has numbers that are not finite.")
            made.q_values(np.zeros(settings["shape"]))
            return made
        except FileNotFoundError:
            raise LearnerError(f"'{path}' is missing; expected a file of qhat export --learner.") from None
        except LearnerError:
            raise
        except Exception as error:
            raise LearnerError(f"'{path}' is no learner, or damaged ({type(error).__name__}).") from None

    def save(self, path: Any) -> None:
        """Write everything: `load` continues with the same bits. An older file stays until the end."""
        path = Path(path)
        settings = {**self.settings, "random": self._random.bit_generator.state}
        counts = np.array([*(self._counts[name] for name in COUNTS[:-1]), self.steps], np.float64)
        arrays = {"weights": self.weights, "trace": self.trace, "mean": self._mean, "m2": self._m2}
        norms = {f"norm{index}": norm for index, norm in enumerate(self._norms)}
        new = path.with_name(path.name + ".new")
        with new.open("wb") as file:
            file.write(_packed({**arrays, "counts": counts, **norms}, settings))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)

    def q_values(self, observation: Any) -> np.ndarray:
        """Return Q(s, ·), `[factors, choices]`; of scaled rewards, in standard deviations of the return."""
        return self._forward(self._read(observation, "observation"))[0]

    def act(self, observation: Any, explore: bool = True) -> Any:
        """Return the environment's own action: the greedy one, or with probability ε another.

        ε is `settings["epsilon"]`, the run's last one.
        """
        choice = np.argmax(self.q_values(observation), axis=1)
        if explore and self._random.random() < self.settings["epsilon"]:
            choice = np.array([self._random.integers(count) for count in self._choices])
        return self._to_env(choice)

    def learn(
        self,
        observation: Any,
        action: Any,
        reward: float,
        next_observation: Any,
        terminated: bool,
        truncated: bool = False,
    ) -> float:
        """Learn from a step, which follows the last one unless that ended its episode. Return its error δ.

        Args:
            action: as `act` returns it.
            terminated: the task ended, so the value of `next_observation` is 0.
            truncated: a time limit or a person ended the episode; `next_observation` keeps its value.

        Raises:
            LearnerError: numbers that are not finite, a wrong shape, no action. Nothing is learned.
        """
        before = self._read(observation, "observation")
        after = self._read(next_observation, "next_observation")
        chosen = self._from_env(action)
        reward = self._type.type(np.float32(reward))
        _need(bool(np.isfinite(reward)), f"reward is {reward}; expected a finite number.")
        ended, settings, counts = bool(terminated or truncated), self.settings, self._counts
        self._include([before, after] if ended else [before])
        self._scale(reward, ended)
        if settings["scale_rewards"]:
            reward = reward / np.sqrt(counts["variance"] + self._type.type(EPSILON))

        # δ = r/σ + γ·V(s') − Q(s, a)
        gamma = self._type.type(settings["gamma"])
        q, inner = self._forward(before)
        rows = np.arange(len(chosen))
        value = q[rows, chosen].mean()
        ahead = 0.0 if terminated else gamma * self._forward(after)[0].max(axis=1).mean()
        error = reward + self._type.type(ahead) - value

        # z ← γλ·z + ∇Q(s, a)
        self._backward(inner, rows * q.shape[1] + chosen)
        self.trace *= gamma * self._type.type(settings["trace_decay"]) if counts["open"] else 0
        self.trace += self._gradient

        # θ ← θ + α·δ·z
        rate = self._type.type(settings["learning_rate"])
        bound = settings["kappa"] * max(abs(error), 1) * np.abs(self.trace).sum()
        step = rate / max(rate * self._type.type(bound), 1) * error
        _need(bool(np.isfinite(step)), f"the error of step {self.steps:,} is {error}; nothing was learned.")
        self.weights += step * self.trace

        best, cut = q.max(axis=1), settings["cut"]
        loss = (best - q[rows, chosen]).mean()
        if cut is not None and loss > self._type.type(cut) * np.abs(best).mean():
            self.trace[:] = 0
        counts["open"] = self._type.type(not ended)
        self.steps += 1
        return float(error)

    def end_episode(self) -> None:
        """End the episode as truncated, where a robot stops without a last step."""
        self._counts["open"] = self._counts["running"] = self._type.type(0)

    def _read(self, observation: Any, name: str) -> np.ndarray:
        x = np.asarray(observation, np.float32)
        shape = tuple(self.settings["shape"])
        _need(x.shape == shape, f"{name} has shape {x.shape}; expected {shape}.")
        _need(bool(np.isfinite(x).all()), f"{name} has numbers that are not finite. Nothing was learned.")
        return x.astype(self._type).ravel()

    def _from_env(self, action: Any) -> np.ndarray:
        given = np.asarray(action)
        if self._commands is None:
            choice = given.reshape(-1) - self._start
        else:
            choice = np.abs(self._commands - given.reshape(-1, 1)).argmin(axis=1)
        good = choice.shape == (len(self._choices),)
        good = good and bool(
            ((choice >= 0) & (choice < self._choices) & (choice == np.floor(choice))).all()
        )
        _need(good, f"action is {action!r}; expected one that `act` returns. Nothing was learned.")
        return choice.astype(int)

    def _to_env(self, choice: np.ndarray) -> Any:
        if self._commands is not None:
            chosen = self._commands[np.arange(len(choice)), choice]
            return chosen.astype(self.settings["action_dtype"]).reshape(self.settings["action_shape"])
        moved = choice + self._start
        if self.settings["kind"] == "discrete":
            return int(moved[0])
        return moved.astype(self.settings["action_dtype"]).reshape(self.settings["action_shape"])

    def _include(self, rows: list[np.ndarray]) -> None:
        """Include observations in the statistics (Chan, Golub & LeVeque 1979)."""
        if not self.settings["normalise"]:
            return
        count, before = self._type.type(len(rows)), self._counts["observations"]
        away = np.stack(rows) - self._mean
        delta = away.sum(axis=0) / count
        within = np.square(away - delta).sum(axis=0)
        total = before + count
        share = count / total
        self._mean += share * delta
        self._m2 += within + share * before * np.square(delta)
        self._counts["observations"] = total

    def _scale(self, reward: Any, ended: bool) -> None:
        """Include a step in the spread of the returns that look back."""
        counts, one = self._counts, self._type.type(1)
        counts["returns"] += one
        running = self._type.type(self.settings["gamma"]) * counts["running"] + reward
        away = running - counts["mean"]
        counts["mean"] += away / counts["returns"]
        square = away * (running - counts["mean"])
        if counts["returns"] > 1:
            counts["variance"] += (square - counts["variance"]) / (counts["returns"] - one)
        counts["running"] = self._type.type(0) if ended else running

    def _forward(self, x: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """Return Q, and what `_backward` takes of every layer."""
        if self.settings["normalise"]:
            count = self._counts["observations"]
            variance = self._m2 / max(count, 1) if count > 0 else np.ones_like(self._m2)
            x = np.clip((x - self._mean) / np.sqrt(variance + self._type.type(EPSILON)), -LIMIT, LIMIT)
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


def _need(condition: bool, sentence: str) -> None:
    if not condition:
        raise LearnerError(sentence)
