"""Sentences for people: how an observation is stored and shown to the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from qhat.axes import masks
from qhat.environments.observations.arrays import at
from qhat.environments.observations.entry import EXACT, Entry
from qhat.system.errors import setting

if TYPE_CHECKING:
    from qhat.environments.observations.coding import Observations


def notes_of(observations: Observations, env_id: str, normalise: bool | None) -> Iterator[str]:
    """Say what a user should know before training begins, a sentence each."""
    name = f"Environment '{env_id}'" if env_id else "The observation"
    large = [entry for entry in observations.entries if entry.is_large]
    if observations.is_packed:
        rest = (
            f"; the other {observations.count:,} numbers join their features"
            if observations.numbers
            else ""
        )
        yield (
            f"{name} shows {_listed(observations.pictures)}: each picture goes through a torso of its"
            f" own, scaled to 0…1 by its bounds{rest}."
        )
    if large and normalise is None:
        yield (
            f"{name} shows {_listed(large)}: the numbers are shown to the network in standard deviations"
            " from their running mean, for values of that size drown the others or the network"
            f" ({setting('normalise', False)} shows them as they are)."
        )
    elif large and normalise is False:
        yield (
            f"{name} shows {_listed(large)}, and {setting('normalise', False)}: values of that size"
            " drown the"
            " others, or the network. Leave it out to have them standardised."
        )
    for entry in observations.entries:
        if entry.path and entry.path[-1] in masks.NAMES and not env_id:
            yield (
                f"{name} shows '{entry.path[-1]}': an agent hears of legal actions by mask=; what is part"
                " of the observation is learned from as numbers."
            )
        elif entry.path and entry.path[-1] in masks.NAMES:
            yield (
                f"{name} shows '{entry.path[-1]}' {entry.shape}, which is no mask of its actions: a 0 or"
                " 1 for each choice, within bounds of 0 and 1. It is learned from as numbers, and every"
                " action counts as legal."
            )
        whole = np.dtype(entry.dtype).kind in "iu" and not entry.choices
        if whole and entry.reach > EXACT and not entry.has_type_bounds:
            yield _inexact(name, entry, f"up to {entry.reach:.3g}")
    for entry in observations.pictures:
        if (entry.low is None or entry.high is None) and not observations.is_one:
            yield (
                f"{name} shows the picture{entry.where} without bounds, so it is not scaled. Give its"
                " space bounds, for example 0 and 1, to have it scaled."
            )


def described(observations: Observations, normalise: bool | None) -> Iterator[tuple[str, str, str]]:
    """Say of every entry its path, its space, and what becomes of it."""
    standard = observations.standardises if normalise is None else normalise
    for entry in observations.entries:
        if entry.order:
            scale = "" if entry.scale == (0.0, 1.0) else ", scaled to 0…1"
            size = 1 if entry.is_bytes else 4
            height, width, channels = entry.framed(observations.frames).image_shape
            what = f"picture {height}×{width}×{channels}{scale}, {size} byte(s) a pixel in replay"
        else:
            what = f"one-hot, {entry.choices} numbers" if entry.choices else f"{entry.size} number(s)"
            what += ", in standard deviations from their running mean" if standard else ""
        yield entry.label or "observation", entry.text, what


def inexact_of(observations: Observations, batch: Any, env_id: str) -> Iterator[str]:
    """Say which whole numbers of a batch of observations float32 does not hold, where no bounds said so."""
    for entry in observations.entries:
        if entry.has_type_bounds and not observations.frames:
            value = np.asarray(at(batch, entry.path))
            lost = value[value.astype(np.float32).astype(np.float64) != value.astype(np.float64)]
            if lost.size:
                yield _inexact(f"Environment '{env_id}'", entry, f"such as {lost.flat[0]}")


def _inexact(name: str, entry: Entry, which: str) -> str:
    return (
        f"{name} shows whole numbers{entry.where} {which}; a network reads them as float32, which tells"
        f" neighbours from each other up to {EXACT:,}."
    )


def _listed(entries: Any) -> str:
    parts = [f"'{entry.label}' {entry.text}" if entry.path else entry.text for entry in entries]
    return f"{', '.join(parts[:4])}{' and others' if len(parts) > 4 else ''}"
