"""What environments there are, as data: readable before JAX or an environment library is imported."""

from __future__ import annotations

import dataclasses

from qhat.errors import UsageError, near_miss


@dataclasses.dataclass(frozen=True)
class Entry:
    """One environment id."""

    id: str
    observation: str
    """Shape and dtype of one observation, for people."""
    choices: int | None
    """Number of discrete actions; `None` for a continuous action space."""
    reference: str | None
    """Gymnasium id of the reference implementation that scores are measured on."""
    backend: str = "gymnax"


def _minatar(name: str, channels: int, choices: int) -> Entry:
    return Entry(f"{name}-MinAtar", f"(10, 10, {channels}) bool", choices, None)


ENTRIES: tuple[Entry, ...] = (
    Entry("CartPole-v1", "(4,) float32", 2, "CartPole-v1"),
    Entry("Acrobot-v1", "(6,) float32", 3, "Acrobot-v1"),
    Entry("MountainCar-v0", "(2,) float32", 3, "MountainCar-v0"),
    Entry("Catch-bsuite", "(10, 5) float32", 3, None),
    _minatar("Asterix", 4, 5),
    _minatar("Breakout", 4, 3),
    _minatar("Freeway", 7, 3),
    _minatar("Seaquest", 10, 6),
    _minatar("SpaceInvaders", 6, 4),
    Entry("Pendulum-v1", "(3,) float32", None, "Pendulum-v1"),
    Entry("MountainCarContinuous-v0", "(2,) float32", None, "MountainCarContinuous-v0"),
)


def find(env_id: str) -> Entry:
    """Return the entry of an id that can be trained on.

    Raises:
        UsageError: the id is unknown (with the near miss), or its actions are continuous.
    """
    by_id = {entry.id: entry for entry in ENTRIES}
    if env_id not in by_id:
        trainable = [entry.id for entry in ENTRIES if entry.choices]
        raise UsageError(
            f"Environment '{env_id}' is not known; `qhat envs` lists what is."
            + (_by_first_word(env_id, trainable) or near_miss(env_id, trainable))
        )
    entry = by_id[env_id]
    if entry.choices is None:
        raise UsageError(
            f"Environment '{env_id}' has continuous actions; expected discrete ones, such as"
            " CartPole-v1. Binned continuous actions are not there yet."
        )
    return entry


def _by_first_word(env_id: str, known: list[str]) -> str:
    """`Catch` and `breakout` mean `Catch-bsuite` and `Breakout-MinAtar`."""
    first = env_id.lower().split("-")[0]
    hits = [name for name in known if name.lower().split("-")[0] == first]
    return f" Did you mean '{hits[0]}'?" if hits else ""
