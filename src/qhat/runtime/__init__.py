"""An exported policy on a robot: this one file, and NumPy. Copy it; it needs neither qhat nor JAX.

    from qhat_runtime import Policy, Runner        # within qhat: qhat.runtime
    policy = Policy.load("export")
    action = policy.act(observation)               # raises PolicyError for an observation that is none

    robot = Runner(policy, safe_action=0, timeout=0.2, safety=my_filter)
    robot.observe(observation)                     # where the sensor's message comes in
    action = robot.command()                       # in the control loop: never raises, never garbage

Python 3.9 or later. The format is docs/export-format.md of qhat.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FORMAT, FORMAT_JOINT = 1, 2
"""Of policy.json; the second is of policies with values of joint actions, which older runtimes misread."""
WEIGHTS, GRAPH, ABOUT = "weights.safetensors", "policy.onnx", "policy.json"
ALONE, ALONE_ROWS = 9_000, 250_000
"""Multiplications, by a vector and by a matrix, that OpenBLAS does on one thread."""
MOST = 2**24
"""Numbers of an observation, of a stack of frames, and between two layers."""
LARGEST = 2**31
"""Bytes of the largest file that is read."""


class PolicyError(ValueError):
    """A folder that is no policy, or an observation that the policy cannot act on. A sentence."""


class Policy:
    """The greedy policy of a folder. Not for several threads at once; `Runner` is."""

    def __init__(self, about: dict, run: Callable, onnx: bool, beyond: str = "refuse"):
        """Use `load`."""
        observation, actions = about["observation"], about["actions"]
        self.about, self.runtime = about, "onnxruntime" if onnx else "numpy"
        self.shape, self.dtype = tuple(observation["shape"]), np.dtype(observation["dtype"])
        self.choices, self._kind = tuple(actions["choices"]), actions["kind"]
        self._run, self._onnx, self._beyond = run, onnx, beyond
        self._entries, self._packed = observation.get("entries"), about["network"][0].get("op") == "parts"
        self._terms = observation.get("terms")
        frame = sum(term["size"] for term in self._terms or [])
        self._frame = 0 if (frame,) == self.shape else frame
        self._buffer = np.zeros(self.shape, self.dtype)
        self._inside, self._size = np.zeros(self.shape, bool), self._buffer.size
        ends = {"low": [None], "high": [None]} if beyond == "ignore" else observation
        self._low, self._high = (_bound(ends[end], self.shape, self.dtype, end) for end in ("low", "high"))
        F, C = len(self.choices), max(self.choices)
        self._outputs, self._joint = (F, C), None
        exists = np.arange(C) < np.array(self.choices)[:, None]
        self._exists = None if exists.all() else exists
        if actions.get("joint"):
            # Q is of every joint action; of these, the last joint's choice changes first.
            places = np.unravel_index(np.arange(math.prod(self.choices)), self.choices)
            self._joint, self._exists, self._outputs = np.stack(places, axis=1), None, (1, len(places[0]))
        self._table, self._rows = None, np.arange(F)
        self._start, self._shape = _layout(actions)
        self._first, self._type = int(self._start[0]), np.dtype(actions["dtype"])
        self.safe_action = about.get("safe_action")
        """The folder's own safe action, in the numbers that `act` returns; `None` where it has none."""
        if "shape" not in actions and self._start.any() and self.safe_action is not None:
            # Older folders, which say no shape, count it from 0.
            self.safe_action = np.add(self.safe_action, self._start.reshape(self._shape)).tolist()
        if actions["commands"] is not None:
            rows = [[*row, *[row[-1]] * (C - len(row))] for row in actions["commands"]]
            with np.errstate(over="ignore"):
                self._table = np.array(rows, actions["dtype"])
            exact = np.allclose(self._table.astype(np.float64), np.array(rows, np.float64), atol=0)
            good = exact and bool(np.isfinite(self._table).all())
            _need(good, f"'{ABOUT}' has commands that {actions['dtype']} cannot hold.")
        self._keeps = kept_by(about["network"])[1]
        self.reset()

    @staticmethod
    def load(folder: Any, runtime: str = "auto", beyond: str = "refuse") -> Policy:
        """Read a folder that `qhat export` wrote.

        Args:
            runtime: `numpy`, `onnxruntime`, or `auto`: NumPy, but onnxruntime for pictures where it is.
            beyond: what to do with an observation beyond the environment's bounds: `refuse` it, `clip` it,
                or `ignore` that. Numbers that are not finite are always refused.

        Raises:
            PolicyError: the folder is no policy, damaged, or was edited.
        """
        _need(runtime in ("auto", "numpy", "onnxruntime"),
              f"runtime is {runtime!r}; expected auto, numpy or onnxruntime.")  # fmt: skip
        _need(beyond in ("refuse", "clip", "ignore"),
              f"beyond is {beyond!r}; expected refuse, clip or ignore.")  # fmt: skip
        folder = Path(folder)
        if folder.name == ABOUT:
            folder = folder.parent
        about = _read_about(folder)
        pictures = any(one.get("op") in ("convolution", "parts") for one in about["network"])
        onnx = runtime == "onnxruntime" or (runtime == "auto" and pictures and _has_onnxruntime(folder))
        try:
            if onnx:
                run = _session(folder, about)
            else:
                run = planned(about["network"], _tensors(folder / WEIGHTS, about))
            policy = Policy(about, run, onnx, beyond)
            q = policy.q_values(np.zeros(policy.shape, policy.dtype), _check=False)
            _need(not np.isnan(q).any(), "its values at 0 are not numbers.")
        except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
            if isinstance(error, PolicyError):
                raise
            raise PolicyError(f"'{folder}' is damaged: its network cannot be run ({error}).") from None
        policy.reset()
        return policy

    def reset(self) -> None:
        """Begin an episode: the next frame is the first of a stack, and a memory is empty."""
        op = self._keeps or {"shape": ()}
        units = "units" in op
        self._kept = np.zeros(op["units"] if units else op["shape"], np.float32 if units else self.dtype)
        self._fresh, self._past, self._frames = True, None, None

    def act(self, observation: Any, mask: Any = None) -> Any:
        """Return the environment's own action for one observation, which its action space contains.

        Args:
            mask: the legal actions: 0 or 1 for each, `[C]` or `[F, C]`; entry i is the action start + i.

        Returns:
            an `int` where actions are `discrete`, else an array of their `dtype` and `shape`.

        Raises:
            PolicyError: another shape or dtype, numbers that are not finite or beyond the bounds.
        """
        x = self._read(observation)
        q, kept = self._values(x)
        if mask is not None:
            q = np.where(self._legal(mask), q, -np.inf)
        if len(q) == 1:
            choice: Any = int(q.argmax())
            good = -math.inf < q.item(choice) < math.inf
            if self._joint is not None:
                choice = self._joint[choice]
        else:
            choice = q.argmax(axis=1)
            good = bool(np.isfinite(q[self._rows, choice]).all())
        _need(good, "The policy's values are not finite for this observation; expected numbers.")
        if self._keeps:
            self._kept, self._fresh = kept, False
        self._past = self._frames
        if self._table is not None:
            return self._table[self._rows, choice].reshape(self._shape)
        if self._kind == "discrete":
            return choice + self._first
        return (choice + self._start).astype(self._type).reshape(self._shape)

    def q_values(self, observation: Any, _check: bool = True) -> np.ndarray:
        """Return Q, `[C]` where actions are discrete, else `[F, C]`; of joint actions `[1, J]`.

        A frame stack and a memory stay where they are.
        """
        q = self._values(self._read(observation) if _check else observation)[0].copy()
        return q[0] if self._kind == "discrete" else q

    def _values(self, x: np.ndarray) -> tuple:
        q, kept = self._run(x, self._kept, self._fresh)
        q = q.reshape(self._outputs)
        return (q if self._exists is None else np.where(self._exists, q, -np.inf)), kept

    def _read(self, observation: Any) -> np.ndarray:
        array = self.coded(observation) if self._entries or self._terms else observation
        array = array if type(array) is np.ndarray else _array(array)
        self._frames = self._past
        if self._frame and array.shape == (self._frame,):
            array = self._remembered(array)
        if array.shape != self.shape:
            raise PolicyError(f"The observation has shape {array.shape}; expected {self.shape}.")
        x = self._buffer
        if array.dtype == x.dtype:
            x[...] = array
        else:
            self._convert(array)
        # False for NaN and ∞ too: a number without a bound is within those of its type.
        np.greater_equal(x, self._low, out=self._inside)
        if np.count_nonzero(self._inside) != self._size:
            self._blame(x)
        np.less_equal(x, self._high, out=self._inside)
        if np.count_nonzero(self._inside) != self._size:
            self._blame(x)
        return x

    def coded(self, observation: Any) -> Any:
        """Return the array that the environment's own observation is coded as; an array stays as it is."""
        entries = self._entries
        if self._terms and isinstance(observation, dict):
            return np.concatenate([_reading(term, observation, self._terms) for term in self._terms])
        if not entries or (type(observation) is np.ndarray and observation.shape == self.shape):
            return observation
        tops = {entry["path"][0] for entry in entries if entry["path"]}
        listed = isinstance(observation, (list, tuple)) and len(observation) == len(tops)
        several = listed and all(type(top) is int for top in tops)
        alone = not tops and np.ndim(observation) == 0
        if not (alone or several or isinstance(observation, dict)):
            return observation
        parts = [_entry(entry, observation) for entry in entries]
        if self._packed:
            return np.concatenate([part.view(np.uint8) for part in parts])
        return np.concatenate(parts).astype(self.dtype).reshape(self.shape)

    def _remembered(self, frame: np.ndarray) -> np.ndarray:
        """Put readings beside those before them, term by term, the oldest first."""
        most = max(term["history"] for term in self._terms)
        past = np.repeat(frame[None], most, axis=0) if self._past is None else self._past
        self._frames = np.concatenate([past[1:], frame[None]])
        parts, at = [], 0
        for term in self._terms:
            parts.append(self._frames[most - term["history"] :, at : at + term["size"]].ravel())
            at += term["size"]
        return np.concatenate(parts)

    def _convert(self, array: np.ndarray) -> None:
        """Take another type of numbers, where it can hold the same ones."""
        real = self.dtype.kind == "f"
        good = array.dtype.kind in ("fiub" if real else "iub")
        if good and not real:
            most = (
                (0, 1) if self.dtype.kind == "b" else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
            )
            good = bool(((array >= most[0]) & (array <= most[1])).all())
        _need(good, f"The observation is {array.dtype}, or beyond what {self.dtype} can hold; expected"
              f" {self.dtype} numbers, as in training.")  # fmt: skip
        with np.errstate(over="ignore"):
            self._buffer[...] = array.astype(self.dtype)

    def _blame(self, x: np.ndarray) -> None:
        """Refuse an observation, or bring it within the bounds."""
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            at = np.argwhere(~np.isfinite(x))[0]
            raise PolicyError(
                f"The observation{self._where(at)} is {x[tuple(at)]}; expected a finite number."
            )
        if self._beyond != "clip":
            at = np.argwhere((x < self._low) | (x > self._high))[0]
            low, high = self._low[tuple(at)], self._high[tuple(at)]
            raise PolicyError(
                f"The observation{self._where(at)} is {x[tuple(at)]}; expected {low} to {high}. Policy.load"
                "(…, beyond='clip') brings it there."
            )
        np.clip(x, self._low, self._high, out=x)

    def _where(self, at: np.ndarray) -> str:
        names = self.about["observation"].get("names")
        named = f" ({names[int(np.ravel_multi_index(tuple(at), self.shape))]})" if names and len(at) else ""
        return f" at {tuple(int(i) for i in at)}{named}"

    def _legal(self, mask: Any) -> np.ndarray:
        legal = _array(mask)
        F, C = len(self.choices), max(self.choices)
        good = legal.dtype.kind in "biuf" and legal.shape in ((F, C), *([(C,)] if F == 1 else []))
        _need(
            good and bool(np.isin(legal, (0, 1)).all()),
            f"The mask has shape {legal.shape}; expected 0 or 1 for each of {(F, C)} choices.",
        )
        legal = legal.reshape(F, C).astype(bool)
        if self._joint is not None:
            legal = np.logical_and.reduce(legal[self._rows, self._joint], axis=1)[None]
        allowed = legal if self._exists is None else legal & self._exists
        _need(bool(allowed.any(axis=1).all()), "The mask allows no action; expected at least one.")
        return legal


class Runner:
    """Between a policy and motors: returns an action whatever happens, and says when it is the safe one."""

    def __init__(
        self,
        policy: Policy,
        safe_action: Any = None,
        timeout: Any = None,
        safety: Callable[[Any], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Check what has to be right before the robot moves.

        Args:
            safe_action: what is returned in place of an action; the folder's own unless given. What `act`
                could return, or a command between those; or anything but numbers (`"stop"`), as it is.
            timeout: seconds after which an observation is too old to act on; the folder's unless given.
            safety: your own filter: gets the policy's action, returns the action to take. Where it raises,
                or returns what is no action, the safe action is taken.
            clock: seconds now, where `stamp` and `now` are not given.

        Raises:
            PolicyError: no safe action or timeout, or ones that have no meaning.
        """
        safe = policy.safe_action if safe_action is None else safe_action
        wait: Any = policy.about.get("timeout") if timeout is None else timeout
        _need(
            safe is not None,
            "No safe action is known; expected safe_action=, or qhat export --safe-action.",
        )
        _need(
            _number(wait) and wait > 0,
            f"timeout is {wait!r}; expected seconds, more than 0: timeout=, or qhat export --timeout.",
        )
        number = isinstance(safe, (int, float, list, tuple, np.ndarray, np.generic))
        self._safe_action = read_action(policy.about["actions"], safe, "safe_action") if number else safe
        self.policy, self.timeout, self._safety, self._clock = policy, float(wait), safety, clock
        self._lock, self._latest, self._acted = threading.Lock(), None, None
        self.reason, self.safe_count = "", 0
        """Why the last command was the safe action, empty where it was not; and how many were."""

    def observe(self, observation: Any, mask: Any = None, stamp: Any = None) -> None:
        """Take an observation, from any thread. Never raises; what is wrong with it `command` says.

        Args:
            stamp: seconds at which it was measured, on the same clock as `now`: unless given,
                `time.monotonic()` of now.
        """
        try:
            coded = np.array(self.policy.coded(observation))
            taken: Any = (coded, None if mask is None else np.array(mask))
        except Exception as error:
            taken = error
        try:
            at = self._clock() if stamp is None else stamp
        except Exception as error:
            taken, at = error, stamp
        self._latest = (taken, at)

    def command(self, now: Any = None) -> Any:
        """Return the action to take now. Never raises: the safe action, and why in `reason`."""
        with self._lock:
            try:
                action, self.reason = self._decide(self._clock() if now is None else now), ""
                return action
            except Exception as error:
                self.safe_count += 1
                self.reason = str(error) if isinstance(error, PolicyError) else _failure(error)
                safe = self._safe_action
                return safe.copy() if isinstance(safe, np.ndarray) else safe

    def act(self, observation: Any, mask: Any = None, stamp: Any = None, now: Any = None) -> Any:
        """Do both: take an observation, return the action."""
        self.observe(observation, mask, stamp)
        return self.command(now)

    def reset(self) -> None:
        """Begin an episode: what was seen before is forgotten."""
        with self._lock:
            self._latest = self._acted = None
            self.policy.reset()

    def _decide(self, now: Any) -> Any:
        latest = self._latest
        if latest is None:
            raise PolicyError("There is no observation yet.")
        taken, stamp = latest
        if isinstance(taken, Exception):
            raise PolicyError(f"The observation cannot be read: {_failure(taken)}")
        age = now - stamp
        if not -self.timeout <= age <= self.timeout:
            other = " Its stamp is another clock's: see Runner(clock=)." if abs(age) > 1e6 else ""
            raise PolicyError(
                f"The observation is {age:.3f} s old; expected at most {self.timeout:g} s.{other}"
            )
        if self._acted is None or self._acted[0] is not latest:
            self._acted = (latest, self.policy.act(*taken))
        action = self._acted[1]
        # A copy: it is the answer to the next call too, whatever becomes of this one.
        given = action.copy() if isinstance(action, np.ndarray) else action
        if self._safety is None:
            return given
        return read_action(self.policy.about["actions"], self._safety(given), "the safety filter's action")


def read_action(actions: dict, value: Any, name: str) -> Any:
    """Return a value that is one of the environment's own actions. Raises `PolicyError` for any other."""
    action, (start, shape), kind = _array(value), _layout(actions), actions["kind"]
    F, low, high, words = len(start), start, start + np.array(actions["choices"]) - 1, "whole numbers"
    shapes, kinds = [shape, (F,)], "iu"
    if kind == "joints":
        low, high = (np.array([end(row) for row in actions["commands"]]) for end in (min, max))
        shapes, kinds = [*shapes, *([()] if F == 1 else [])], "iuf" + np.dtype(actions["dtype"]).kind
        words = f"{F} commands"
    good = action.dtype.kind in kinds and action.shape in (shapes[:1] if kind == "discrete" else shapes)
    flat = action.reshape(-1) if good else low
    said = value.tolist() if isinstance(value, np.ndarray) else value
    many = kind == "joints" or F > 1
    ends = [end.tolist() if many else int(end[0]) for end in (low, high)]
    _need(
        good and bool(((flat >= low) & (flat <= high)).all()),
        f"{name} is {said!r}; expected {words} from {ends[0]} to {ends[1]}.",
    )
    return int(action) if kind == "discrete" else action.astype(actions["dtype"]).reshape(shape)


def _layout(actions: dict) -> tuple:
    """Return the lowest number of every factor and an action's shape, which older folders do not say."""
    F = len(actions["choices"])
    shape = actions.get("shape", [] if actions["kind"] == "discrete" else [F])
    return np.array(actions.get("start", [0] * F), np.int64), tuple(shape)


# Files ------------------------------------------------------------------------------------------------


def _read_about(folder: Path) -> dict:
    """Read policy.json, and hold every file that is there against its hash."""
    path = folder / ABOUT
    try:
        about = json.loads(_bytes(path, 2**24).decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"'{path}' cannot be read as JSON, it is damaged: {error}.") from None
    _need(
        isinstance(about, dict) and "format" in about,
        f"'{path}' is no policy of qhat's: it names no format.",
    )
    found = about["format"]
    _need(type(found) is int and found in (FORMAT, FORMAT_JOINT),
          f"'{path}' has format {str(found)[:40]}; this runtime reads {FORMAT} and"
          f" {FORMAT_JOINT}.")  # fmt: skip
    try:
        _require_sound(about)
        hashes = {name: str(about["files"][name]["sha256"]) for name in (WEIGHTS, GRAPH)}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PolicyError(
            f"'{path}' is damaged: fields are missing or have no meaning ({error})."
        ) from None
    for name, expected in hashes.items():
        if (folder / name).exists():
            _need(hashlib.sha256(_bytes(folder / name)).hexdigest() == expected,
                  f"'{folder / name}' is not the file that {ABOUT} was written with: its SHA-256 is another"
                  " one. Export again.")  # fmt: skip
    return about


def _require_sound(about: dict) -> None:
    """Raise where policy.json has fields of another kind than the runner goes on with."""
    observation, actions, network = about["observation"], about["actions"], about["network"]
    shape, dtype = observation["shape"], np.dtype(observation["dtype"])
    _whole(shape, 0)
    size = math.prod(shape)
    if not (
        isinstance(observation["dtype"], str) and dtype.kind in "fiub" and size <= MOST and len(shape) <= 32
    ):
        raise ValueError("observation")
    for end in ("low", "high"):
        if len(observation[end]) not in (1, size) or not all(
            one is None or _number(one) for one in observation[end]
        ):
            raise ValueError(f"observation.{end}")
    names = observation.get("names")
    if names is not None and (len(names) != size or not all(isinstance(name, str) for name in names)):
        raise ValueError("observation.names")
    _whole(actions["choices"], 1)
    F, C = len(actions["choices"]), max(actions["choices"])
    kind, commands = actions["kind"], actions["commands"]
    if (
        kind not in ("discrete", "multi_discrete", "joints")
        or F * C > 10**6
        or (kind == "discrete" and F > 1)
    ):
        raise ValueError("actions")
    if (kind == "joints") != (commands is not None):
        raise ValueError("actions.commands")
    if commands is not None:
        counts = [len(row) for row in commands]
        if counts != actions["choices"] or not all(_number(one) for row in commands for one in row):
            raise ValueError("actions.commands")
        if np.dtype(actions["dtype"]).kind not in "fiub":
            raise ValueError("actions.dtype")
    joint = actions.get("joint", False)
    if (
        type(joint) is not bool
        or joint != (about.get("format", FORMAT) == FORMAT_JOINT)
        or (joint and (F == 1 or math.prod(actions["choices"]) > 10**6))
    ):
        raise ValueError("actions.joint")
    _require_layout(actions, F)
    if not (isinstance(network, list) and 0 < len(network) <= 1_000):
        raise ValueError("network")
    if not all(isinstance(one, dict) and isinstance(one.get("op"), str) for one in network):
        raise ValueError("network")
    for entry in observation.get("entries") or []:
        _require_sound_entry(entry)
    _require_sound_terms(observation.get("terms"), shape)
    if network[0]["op"] == "parts":
        sizes = [math.prod(one["shape"]) * {"uint8": 1, "float32": 4}[one["dtype"]]
                 for one in network[0]["inputs"]]  # fmt: skip
        if shape != [sum(sizes)] or dtype != np.uint8 or not observation.get("entries"):
            raise ValueError("network.parts")
    keeps = [one for one in network if one["op"] == "stack" or one["op"] in CELLS]
    for one in keeps:
        shape = one["shape"] if one["op"] == "stack" else [one["units"]]
        _whole(shape, 1)
        if len(keeps) > 1 or math.prod(shape) > MOST or (one["op"] == "stack" and shape[0] > 4096):
            raise ValueError(f"network.{one['op']}")


def _require_sound_terms(terms: Any, shape: list) -> None:
    """Raise where terms are not as many numbers as the observation."""
    if terms is None:
        return
    for term in terms:
        _whole([term["size"], term["history"]], 1)
        clip = [-1.0, 1.0] if term["clip"] is None else term["clip"]
        clip = len(clip) == 2 and all(_number(one) for one in clip) and clip[0] <= clip[1]
        scales = len(term["scale"]) in (1, term["size"]) and all(_number(one) for one in term["scale"])
        if not (isinstance(term["name"], str) and clip and scales):
            raise ValueError("observation.terms")
    if [sum(term["size"] * term["history"] for term in terms)] != shape:
        raise ValueError("observation.terms")


def _require_sound_entry(entry: dict) -> None:
    path, choices, start = entry["path"], entry.get("choices", 0), entry.get("start", 0)
    _whole(entry["shape"], 0)
    good = isinstance(path, list) and all(type(key) in (str, int) for key in path)
    good = good and type(choices) is int and 0 <= choices <= MOST and type(start) is int
    if not good or math.prod(entry["shape"]) > MOST or np.dtype(entry["dtype"]).kind not in "fiub":
        raise ValueError("observation.entries")


def _require_layout(actions: dict, F: int) -> None:
    """Raise where an action's numbers are not as many as its factors, or its type cannot hold them."""
    start, shape = actions.get("start", [0] * F), actions.get("shape", [F])
    _whole(start, -(2**62))
    _whole(shape, 0)
    scalar = actions["kind"] == "discrete" and "shape" in actions
    if len(start) != F or math.prod(shape) != F or len(shape) > 32 or (scalar and shape):
        raise ValueError("actions.start, actions.shape")
    if actions["commands"] is None:
        kind, last = np.iinfo(actions["dtype"]), [at + n - 1 for at, n in zip(start, actions["choices"])]  # noqa: B905
        if not kind.min <= min(start) <= max(last) <= min(kind.max, 2**62):
            raise ValueError("actions.dtype")


def digest(about: dict) -> str:
    """Hash what policy.json says, but for the hashes of the files: those have this one in them."""
    rest = {name: value for name, value in about.items() if name != "files"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _require_same(about: dict, given: Any, path: Path) -> None:
    """Refuse a policy.json that was edited since the file was written."""
    _need(given == digest(about),
          f"'{path.with_name(ABOUT)}' does not agree with '{path.name}': it was edited, or is of another"
          " export. Export again; safe_action and timeout can be given to the Runner.")  # fmt: skip


def _tensors(path: Path, about: dict) -> dict:
    """Read weights.safetensors: every byte is accounted for, every number is finite."""
    data = _bytes(path)
    length = int.from_bytes(data[:8], "little")
    _need(len(data) >= 8 and length <= len(data) - 8, f"'{path}' is damaged: its header is longer than it.")
    tensors: dict = {}
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"))
        _require_same(about, header.pop("__metadata__", {}).get("policy_sha256"), path)
        at, first = 0, 8 + length
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            _whole(entry["shape"], 0)
            count = math.prod(entry["shape"])
            whole = begin == at and end - begin == 4 * count and first + end <= len(data)
            _need(
                entry["dtype"] == "F32" and whole,
                f"'{path}' is damaged: tensor '{str(name)[:80]}' is not where, or what, it should be.",
            )
            value = np.frombuffer(data, "<f4", count, first + begin).astype(np.float32)
            _need(
                bool(np.isfinite(value).all()),
                f"'{path}': tensor '{name}' has numbers that are not finite.",
            )
            tensors[name], at = value.reshape(entry["shape"]), end
        _need(first + at == len(data), f"'{path}' is damaged: it has bytes that are no tensor's.")
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(f"'{path}' is damaged: its header cannot be read.") from None
    return tensors


def _bytes(path: Path, most: int = LARGEST) -> bytes:
    """Read a regular file; no link, pipe or device."""
    try:
        status = path.lstat()
        _need(stat.S_ISREG(status.st_mode), f"'{path}' is no regular file; expected one. Nothing was read.")
        _need(status.st_size <= most, f"'{path}' has {status.st_size:,} bytes; expected at most {most:,}.")
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise PolicyError(f"'{path}' is missing; expected a folder that qhat export wrote.") from None
    except OSError as error:
        raise PolicyError(f"'{path}' cannot be read: {error.strerror}.") from None


# The network in onnxruntime, and in NumPy ---------------------------------------------------------------


def _has_onnxruntime(folder: Path) -> bool:
    import importlib.util

    return (folder / GRAPH).exists() and importlib.util.find_spec("onnxruntime") is not None


def _session(folder: Path, about: dict) -> Callable:
    """Return the graph as a function of an observation, what was kept, and whether an episode begins."""
    path = folder / GRAPH
    data = _bytes(path)
    try:
        session = open_graph(data)
    except ImportError:
        raise PolicyError(
            "onnxruntime is not installed: pip install onnxruntime, or runtime='numpy'."
        ) from None
    given = session.get_modelmeta().custom_metadata_map
    _require_same(about, given.get("policy_sha256"), path)
    keeps = kept_by(about["network"])[0]
    parts = about["network"][0] if about["network"][0].get("op") == "parts" else None
    names = ["q_values", *([f"{keeps}_next"] if keeps else [])]
    choices, discrete = about["actions"]["choices"], about["actions"]["kind"] == "discrete"
    shape = (1, max(choices)) if discrete else (1, len(choices), max(choices))
    extra = {"mask": np.ones(shape, bool)} if about["actions"]["masked"] else {}

    def run(x: np.ndarray, kept: np.ndarray, fresh: bool) -> tuple:
        feed = {**(split(parts, x[None]) if parts else {"observation": x[None]}), **extra}
        if keeps:
            feed.update({keeps: kept[None], "start": np.array([fresh])})
        try:
            out = session.run(names, feed)
        except Exception as error:  # its exceptions have no common class but this one
            raise PolicyError(f"onnxruntime cannot run '{path}': {error}") from None
        return out[0], (out[1][0] if keeps else kept)

    return run


def open_graph(data: bytes) -> Any:
    """Open a graph in onnxruntime on one thread: a small network is slower on two."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class but this one
        raise PolicyError(f"'{GRAPH}' cannot be opened by onnxruntime: {error}") from None


def planned(ops: list, tensors: dict) -> Callable:
    """Return the network in NumPy as a function like `_session`'s."""
    keeps, op = kept_by(ops)
    states = np.zeros((2, op["units"] if keeps == "memory" else 0), np.float32)
    forward = plan(ops, tensors, states)

    def stacking(x: np.ndarray, frames: np.ndarray, fresh: bool) -> tuple:
        frame = x.reshape(-1, *frames.shape[1:])
        old = frames[len(frame) :]
        if fresh and op["fill"] == "repeat":
            old = np.concatenate([frame] * (len(frames) // len(frame) - 1))
        elif fresh:
            old = np.zeros_like(old)
        whole = np.concatenate([old, frame])
        return forward(whole), whole

    def recalling(x: np.ndarray, state: np.ndarray, fresh: bool) -> tuple:
        states[0] = 0 if fresh else state
        return forward(x), states[1].copy()

    runs = {"frames": stacking, "memory": recalling}
    return runs.get(keeps, lambda x, kept, fresh: (forward(x), kept))


def kept_by(ops: list) -> tuple:
    """Return what is kept from step to step, `frames`, `memory` or nothing, and the operation with it."""
    if ops[0]["op"] == "stack":
        return "frames", ops[0]
    return next((("memory", op) for op in ops if op["op"] in CELLS), ("", None))


def plan(ops: list, tensors: dict, states: Any = None) -> Callable:
    """Return the network as a function of one whole observation, its buffers made once.

    Args:
        states: of a memory, `[2, units]`: before an observation, and after it, which is written.
    """
    steps, rows = [], 0
    for index, op in enumerate(ops):
        kind = op["op"]
        before, after = ops[index - 1]["op"] if index else "", ops[index + 1 : index + 2]
        if kind == "dense":
            layer = tensors[op["weight"]], tensors[op["bias"]]
            steps.append(_dense(*layer, rows, after == [{"op": "relu"}]))
        elif kind in MAKERS:
            rows = 0 if kind == "mean_fractions" else rows
            rows = len(tensors[op["table"]]) if kind == "fractions" else rows
            # A dense layer's own is in it.
            if kind != "relu" or before != "dense":
                steps.append(MAKERS[kind](op, tensors))
        elif kind in CELLS and states is not None:
            steps.append(_cell(op, tensors, states))
        elif kind != "stack" or index:
            known = f"expected {', '.join(['dense', *MAKERS, *CELLS])}"
            raise PolicyError(f"'{ABOUT}' has the operation {kind[:40]!r}; {known}.")
    run, packed = tuple(steps), bool(ops) and ops[0]["op"] == "parts"

    def forward(x: np.ndarray) -> np.ndarray:
        if x.dtype != np.float32 and not packed:
            x = x.astype(np.float32)
        for step in run:
            x = step(x)
        return x

    return forward


def _dense(weight: np.ndarray, bias: np.ndarray, rows: int, rectify: bool) -> Callable:
    """A layer that writes into a buffer of its own."""
    outputs, inputs = weight.shape
    _need(max(rows, 1) * outputs <= MOST, f"'{ABOUT}' has a layer of more than {MOST:,} numbers.")
    shape = (rows, outputs) if rows else (outputs,)
    out, zeros = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    _need(bias.shape == (outputs,), f"'{ABOUT}' is damaged: a layer's bias is not as long as its outputs.")
    # In parts that BLAS does on one thread: to wait for another takes longer than to do it, on a busy
    # machine a thousand times.
    many = max(1, ALONE_ROWS // weight.size if rows else ALONE // inputs)
    ends = range(0, rows or outputs, many)
    parts = tuple((weight[at : at + many], out[at : at + many]) for at in ends)
    turned, places = weight.T, tuple(slice(at, at + many) for at in ends)

    def step(x: np.ndarray, dot: Any = np.dot, add: Any = np.add, most: Any = np.maximum) -> np.ndarray:
        if rows:
            for place in places:
                dot(x[place], turned, out[place])
        else:
            for part, into in parts:
                dot(part, x, into)
        add(out, bias, out=out)
        if rectify:
            most(out, zeros, out=out)
        return out

    return step


def _cell(op: dict, tensors: dict, states: np.ndarray) -> Callable:
    """A memory: from its state in row 0 to that in row 1, which is what the next operation sees."""
    (before, after), M, gated = states, states.shape[1], op["op"] == "gru"
    _need(len(tensors[op["weight"]]) == (2 + gated) * M, f"'{ABOUT}' is damaged: a memory has other units.")
    given = _dense(tensors[op["weight"]], tensors[op["bias"]], 0, False)
    fed = _dense(tensors[op["recurrent"]], np.zeros(3 * M, np.float32), 0, False) if gated else None
    more = tensors[op["recurrent_bias"]] if gated else None

    def step(x: np.ndarray) -> np.ndarray:
        row = given(x)
        back = row if fed is None else fed(before)
        # The logistic function, of which no number is too large for this form.
        gates = 0.5 * np.tanh(0.5 * (row[:-M] if fed is None else row[:-M] + back[:-M])) + 0.5
        new = row[-M:] if fed is None else np.tanh(row[-M:] + gates[M:] * (back[-M:] + more))
        stays = gates[:M]
        after[...] = stays * before + (1 - stays) * new
        return after

    return step


def _normalise(op: dict, tensors: dict) -> Callable:
    mean, deviation, limit = tensors[op["mean"]], tensors[op["deviation"]], np.float32(op["limit"])
    return lambda x: np.clip((x - mean) / deviation, -limit, limit)


def _layer_norm(op: dict, tensors: dict) -> Callable:
    groups, scale, offset = int(op["groups"]), tensors[op["scale"]], tensors[op["offset"]]
    epsilon, part = np.float32(op["epsilon"]), scale.size // int(op["groups"])
    share = np.full(part, 1 / part, np.float32)

    def step(x: np.ndarray) -> np.ndarray:
        grouped = x.reshape(*x.shape[:-1], groups, part)
        grouped = grouped - np.dot(grouped, share)[..., None]
        grouped /= np.sqrt(np.dot(grouped * grouped, share) + epsilon)[..., None]
        return grouped.reshape(x.shape) * scale + offset

    return step


def _image(op: dict, tensors: dict) -> Callable:
    axes, shape, divide = tuple(op["axes"]), tuple(op["shape"]), np.float32(op["divide"])
    black = np.float32(op.get("subtract", 0))
    return lambda x: (x.transpose(axes).reshape(shape) - black) / divide


def split(op: dict, rows: np.ndarray) -> dict:
    """Take packed observations `[n, bytes]` apart: what each input of the graph is given, by name."""
    found, at = {}, 0
    for part in op["inputs"]:
        wide = part["dtype"] != "uint8"
        size = math.prod(part["shape"]) * (4 if wide else 1)
        piece, at = np.ascontiguousarray(rows[:, at : at + size]), at + size
        found[part["name"]] = (piece.view("<f4") if wide else piece).reshape(len(rows), *part["shape"])
    return found


def _parts(op: dict, tensors: dict) -> Callable:
    """Every part through its own operations; what comes of them, side by side."""
    runs = [(part["name"], plan(part["network"], tensors)) for part in op["inputs"]]

    def step(x: np.ndarray) -> np.ndarray:
        pieces = split(op, x[None])
        return np.concatenate([run(pieces[name][0]) for name, run in runs])

    return step


def _atoms(op: dict, tensors: dict) -> Callable:
    values = tensors[op["values"]]

    def step(z: np.ndarray) -> np.ndarray:
        z = z.reshape(-1, values.size)
        mass = np.exp(z - z.max(axis=1, keepdims=True))
        return (mass @ values) / mass.sum(axis=1)

    return step


def _convolution(op: dict, tensors: dict) -> Callable:
    weight, bias = tensors[op["weight"]], tensors[op["bias"]]
    stride, k = int(op.get("stride", 1)), weight.shape[0]
    sides = (k // 2, k // 2) if op.get("same", True) else (0, 0)

    def step(x: np.ndarray) -> np.ndarray:
        windows = _windows(x, sides, sides, 0.0, k)[::stride, ::stride]
        return np.tensordot(windows, weight, axes=((3, 4, 2), (0, 1, 2))) + bias

    return step


def _residual(op: dict, tensors: dict) -> Callable:
    first, second = (_convolution(op[name], tensors) for name in ("first", "second"))
    return lambda x: x + second(np.maximum(first(np.maximum(x, 0)), 0))


def _shortcut(op: dict, tensors: dict) -> Callable:
    run = plan(op["network"], tensors)
    if op["op"] == "shortcut":
        return lambda x: x + run(x)
    share = tensors[op["share"]]
    return lambda x: x + share * (run(x) - x)


def _unit(op: dict, tensors: dict) -> Callable:
    more = np.array([op["append"]] if "append" in op else [], np.float32)
    length, epsilon = np.float32(op["length"]), np.float32(op["epsilon"])

    def step(x: np.ndarray) -> np.ndarray:
        x = np.concatenate([x, more])
        return x * (length / np.sqrt(np.dot(x, x) + epsilon))

    return step


def _pool(op: dict, tensors: dict) -> Callable:
    def step(x: np.ndarray) -> np.ndarray:
        # Of an even side the border is at its end.
        rows, columns = ((side % 2, 1) for side in x.shape[:2])
        return _windows(x, rows, columns, -np.inf, 3)[::2, ::2].max(axis=(3, 4))

    return step


def _adaptive_max(op: dict, tensors: dict) -> Callable:
    rows, columns = (np.array(op[key], np.intp) for key in ("rows", "columns"))
    return lambda x: x[rows].max(axis=1)[:, columns].max(axis=2)


def _supported(op: dict, x: np.ndarray) -> np.ndarray:
    (q, logits), gap = np.moveaxis(x.reshape(op["factors"], -1, 2), 2, 0), np.float32(op["gap"])
    return np.where(logits > logits.max(axis=1, keepdims=True) - gap, q, np.float32(op["closed"])).ravel()


def _windows(x: np.ndarray, rows: tuple, columns: tuple, fill: float, k: int) -> np.ndarray:
    """Return every k×k window, `[h, w, C, k, k]`, of an image with borders."""
    filled = np.pad(x, (rows, columns, (0, 0)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(filled, (k, k), axis=(0, 1))


MAKERS = {
    "parts": _parts, "normalise": _normalise, "image": _image, "convolution": _convolution, "pool": _pool,
    "residual": _residual, "layer_norm": _layer_norm, "atoms": _atoms, "adaptive_max": _adaptive_max,
    "shortcut": _shortcut, "blend": _shortcut, "unit": _unit,
    "support": lambda op, tensors: lambda x: _supported(op, x),
    "fractions": lambda op, tensors: lambda x: tensors[op["table"]] * x,
    "relu": lambda op, tensors: lambda x: np.maximum(x, 0),
    "flatten": lambda op, tensors: lambda x: x.reshape(-1),
    "mean_fractions": lambda op, tensors: lambda x: x.mean(axis=0),
    "mean_pixels": lambda op, tensors: lambda x: x.mean(axis=(0, 1)),
}  # fmt: skip
"""Functions that make an operation from what policy.json says of it."""
CELLS = ("gru", "min_gru")
"""Operations with a state; `_cell` makes them."""


# Small helpers ------------------------------------------------------------------------------------------


def _need(good: bool, sentence: str) -> None:
    if not good:
        raise PolicyError(sentence)


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        raise PolicyError(f"{str(value)[:80]} is no array; expected numbers.") from None


def _bound(values: list, shape: tuple, dtype: np.dtype, end: str) -> np.ndarray:
    """Return what no number may pass: where there is no bound, what its type can hold."""
    if dtype.kind == "b":
        return np.full(shape, end == "high")
    info: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    kind = int if dtype.kind in "iu" else float
    least, most = kind(info.min), kind(info.max)
    free = least if end == "low" else most
    bounds = np.array([free if one is None else min(max(one, least), most) for one in values], dtype)
    return bounds.reshape(shape) if bounds.size > 1 or shape == (1,) else np.full(shape, bounds[0], dtype)


def _reading(term: dict, sensors: dict, terms: list) -> np.ndarray:
    """Clip and scale what a sensor gives, as in training."""
    _need(term["name"] in sensors and len(sensors) == len(terms),
          f"The sensors are {', '.join(map(str, sensors))}; expected"
          f" {', '.join(one['name'] for one in terms)}.")  # fmt: skip
    value = _array(sensors[term["name"]]).reshape(-1)
    _need(value.size == term["size"] and value.dtype.kind in "fiub",
          f"The sensor '{term['name']}' gives {value.size} numbers ({value.dtype}); expected"
          f" {term['size']}.")  # fmt: skip
    low, high = term["clip"] or (-math.inf, math.inf)
    return np.clip(value.astype(np.float32), low, high) * np.array(term["scale"], np.float32)


def _entry(entry: dict, observation: Any) -> np.ndarray:
    """Read one entry of an environment's own observation, as the flat array that is stored of it."""
    value, name = observation, ".".join(str(key) for key in entry["path"]) or "observation"
    for key in entry["path"]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            raise PolicyError(f"The observation has no entry '{name}'; expected one.") from None
    array, dtype = _array(value), np.dtype(entry["dtype"])
    kinds = "iub" if dtype == np.uint8 else "fiub"
    _need(array.shape == tuple(entry["shape"]) and array.dtype.kind in kinds,
          f"The observation's '{name}' is {array.dtype} {array.shape}; expected {dtype}"
          f" {tuple(entry['shape'])}.")  # fmt: skip
    if choices := entry.get("choices", 0):
        at = float(array) - entry.get("start", 0)
        _need(at % 1 == 0 and 0 <= at < choices,
              f"The observation's '{name}' is {array}; expected a whole number from"
              f" {entry.get('start', 0)}, one of {choices}.")  # fmt: skip
        return np.eye(1, choices, int(at), dtype)[0]
    least, most = (0, 255) if dtype == np.uint8 else (-np.finfo(np.float32).max, np.finfo(np.float32).max)
    _need(dtype.kind == "b" or bool(((array >= least) & (array <= most)).all()),
          f"The observation's '{name}' has numbers that are not finite, or beyond what {dtype} can"
          " hold.")  # fmt: skip
    return array.astype(dtype).ravel()


def _whole(values: Any, least: int) -> None:
    if not isinstance(values, list) or any(type(one) is not int or one < least for one in values):
        raise ValueError("expected a list of whole numbers")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _failure(error: Exception) -> str:
    """Say what failed, whatever the error itself makes of it."""
    try:
        return f"It failed: {error!r}."
    except Exception:
        return f"It failed: {type(error).__name__}."


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")
