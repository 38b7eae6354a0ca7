"""What a robot's simulator says of its observations and actions: groups, terms, joints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qhat.axes.actions import Actions
from qhat.environments.groups import groups_of
from qhat.environments.observations import Observations
from qhat.environments.observations.entry import Entry
from qhat.environments.term import Term
from qhat.system.errors import require, setting

POLICIES = ("policy", "actor")
"""What the group that a robot's policy sees is called: in Isaac Lab, and in mjlab."""


def shown_of(shown: Mapping[str, Any], group: str | None, env_id: str) -> tuple[str, ...]:
    """Return the groups that are shown: those that are named, or the policy's.

    Raises:
        UsageError: there is no such group.
    """
    if group is None:
        group = next((name for name in POLICIES if name in shown), next(iter(shown)))
    return groups_of(shown, group, env_id)


def layout_of(env: Any, shown: Mapping[str, Any], groups: Sequence[str]) -> Observations:
    """Return what the groups are made of, term by term, in the order in which the simulator joins them.

    Args:
        shown: an observation: tensors `[N, …]` by group, or by group and term.
    """
    manager = getattr(env, "observation_manager", None)
    entries: list[Entry] = []
    for group in groups:
        before = (group,) if len(groups) > 1 else ()
        parts = shown[group]
        if isinstance(parts, Mapping):
            shapes = {(*before, name): tuple(part.shape[1:]) for name, part in parts.items()}
        elif manager is not None and parts.ndim == 2:
            sizes = (math.prod(size) for size in manager.group_obs_term_dim[group])
            names = manager.active_terms[group]
            shapes = {(*before, name): (size,) for name, size in zip(names, sizes, strict=True)}
        else:
            shapes = {before: tuple(parts.shape[1:])}
        entries += [Entry.array(path, shape, "float32", -np.inf, np.inf) for path, shape in shapes.items()]
    return Observations(tuple(entries))


def terms_of(env: Any, groups: Sequence[str]) -> tuple[Term, ...]:
    """Return what the robot's sensors give, and what becomes of it, by the simulator's configuration.

    Returns:
        the terms in the order of the observation; none where a robot could not do the same: a term is
        filtered, groups are not joined, or a history has an axis of its own.
    """
    manager = getattr(env, "observation_manager", None)
    terms: list[Term] = []
    for group in groups:
        joined = manager is not None and getattr(manager, "group_obs_concatenate", {}).get(group)
        if manager is None or not joined:
            return ()
        rows = zip(
            manager.active_terms[group],
            manager._group_obs_term_cfgs[group],
            manager.group_obs_term_dim[group],
            strict=True,
        )
        for name, cfg, shape in rows:
            history = max(1, int(getattr(cfg, "history_length", 0) or 0))
            if len(shape) != 1 or shape[0] % history or getattr(cfg, "modifiers", None):
                return ()
            clip = None if cfg.clip is None else (float(cfg.clip[0]), float(cfg.clip[1]))
            size = shape[0] // history
            scale = tuple(_each(1.0 if cfg.scale is None else cfg.scale, size).tolist())
            label = f"{group}.{name}" if len(groups) > 1 else name
            terms.append(Term(label, size, history, clip, scale if len(set(scale)) > 1 else scale[:1]))
    return tuple(terms)


def actions_of(env: Any, bins: Sequence[int], reach: float, env_id: str) -> Actions:
    """Return the commands of every joint.

    A command is a raw action: the simulator multiplies it by a joint's scale and adds its default position.
    With an odd number of bins, one of them is 0, the default pose. Commands reach as far as `reach`, and no
    farther than a joint's soft limits.

    Raises:
        UsageError: another number of bins than joints, or a reach that is none.
    """
    require(
        isinstance(reach, int | float) and not isinstance(reach, bool) and 0 < reach < math.inf,
        f"Environment '{env_id}': reach is {reach!r}; expected a number above 0, in raw actions.",
    )
    ranges = _ranges(env, float(reach), env_id)
    joints = len(ranges)
    require(
        len(bins) in (1, joints),
        f"{setting('bins')} has {len(bins)} numbers, '{env_id}' {joints} joints; expected 1 or {joints}.",
    )
    counts = tuple(bins) * joints if len(bins) == 1 else tuple(bins)
    commands = tuple(_around(low, high, count) for (low, high), count in zip(ranges, counts, strict=True))
    return Actions(tuple(counts), commands, "float32", shape=(joints,))


def joints_of(env: Any) -> tuple[tuple[str, ...], tuple[tuple[float, float], ...]]:
    """Return the joints' names, and how each follows its action: scale and offset of its position.

    Nothing of the second where a term of the actions does not command positions; nothing of both where the
    simulator has no terms.
    """
    manager = getattr(env, "action_manager", None)
    if manager is None:
        return (), ()
    names: list[str] = []
    drives: list[tuple[float, float]] = []
    for name in manager.active_terms:
        term = manager.get_term(name)
        joints = getattr(term, "target_names", None) or getattr(term, "_joint_names", None)
        fits = joints is not None and len(joints) == term.action_dim
        names += list(joints or ()) if fits else [f"{name}_{index}" for index in range(term.action_dim)]
        if _positions(term):
            drives += zip(*_scale_and_offset(term), strict=True)
    return tuple(names), tuple(drives) if len(drives) == len(names) else ()


def _ranges(env: Any, reach: float, env_id: str) -> list[tuple[float, float]]:
    """Return the lowest and highest raw action of every joint."""
    manager = getattr(env, "action_manager", None)
    if manager is None:
        space = env.single_action_space
        require(
            hasattr(space, "low"),
            f"Environment '{env_id}' has the action space {space}; expected one of numbers, a Box.",
        )
        low, high = (np.broadcast_to(end, space.shape).ravel() for end in (space.low, space.high))
        return [(max(float(a), -reach), min(float(b), reach)) for a, b in zip(low, high, strict=True)]
    terms = [manager.get_term(name) for name in manager.active_terms]
    return [ends for term in terms for ends in _of_term(term, reach)]


def _of_term(term: Any, reach: float) -> list[tuple[float, float]]:
    """Return the range of each joint of a term: `reach`, within the soft limits of positions."""
    count = term.action_dim
    ids = getattr(term, "target_ids", getattr(term, "_joint_ids", None))
    body = getattr(term, "_entity", getattr(term, "_asset", None))
    limits = getattr(getattr(body, "data", None), "soft_joint_pos_limits", None)
    if not _positions(term) or limits is None or ids is None:
        return [(-reach, reach)] * count
    scale, offset = _scale_and_offset(term)
    ends = limits[0][ids].cpu().numpy().reshape(count, 2)
    raw = np.sort((ends - offset[:, None]) / scale[:, None], axis=1)
    low, high = np.clip(raw, -reach, reach).T
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _positions(term: Any) -> bool:
    """Whether a term commands positions of joints."""
    return any(kind.__name__ == "JointPositionAction" for kind in type(term).__mro__)


def _scale_and_offset(term: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return `[joints]` of each: a joint's position is to be offset + scale · action."""
    scale = getattr(term, "scale", getattr(term, "_scale", 1.0))
    offset = getattr(term, "offset", getattr(term, "_offset", 0.0))
    return _each(scale, term.action_dim), _each(offset, term.action_dim)


def _each(value: Any, count: int) -> np.ndarray:
    """Return one number for each joint of what is a number, or a tensor `[N, joints]`."""
    numbers = value.cpu().numpy() if hasattr(value, "cpu") else np.asarray(value)
    row = numbers[0] if numbers.ndim == 2 else numbers
    return np.broadcast_to(row, (count,)).astype(np.float64)


def _around(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return `count` commands from low to high, with 0 in the middle where that is one of them."""
    if count % 2 == 0 or not low < 0 < high:
        return tuple(np.linspace(low, high, count).tolist())
    half = count // 2
    below, above = np.linspace(low, 0.0, half + 1)[:-1], np.linspace(0.0, high, half + 1)[1:]
    return (*below.tolist(), 0.0, *above.tolist())
