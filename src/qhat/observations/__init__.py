"""What an environment shows, as the engine takes it: one codec, made from the space.

`Observations.of(space, id)` reads a Gymnasium space. The same value codes observations in training,
evaluation, `Run.policy`, `Agent` and exports, and decodes them at the network's entrance.
"""

from __future__ import annotations

from qhat.observations.coding import Observations
from qhat.observations.entry import Entry
from qhat.observations.notes import inexact_of
from qhat.observations.reading import read_numbers, read_one, read_value
from qhat.observations.saved import read_layout, read_space, write_observation
from qhat.observations.spaces import entries_of

__all__ = [
    "Entry", "Observations", "entries_of", "inexact_of", "read_layout", "read_numbers", "read_one",
    "read_space", "read_value", "write_observation",
]  # fmt: skip
