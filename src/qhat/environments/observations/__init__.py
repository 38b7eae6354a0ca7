"""What an environment shows, as the engine takes it: one codec, made from the space.

`Observations.of(space, id)` reads a Gymnasium space. The same value codes observations in training,
evaluation, `Run.policy`, `Agent` and exports, and decodes them at the network's entrance.
"""

from __future__ import annotations

from qhat.environments.observations.coding import Observations
from qhat.environments.observations.entry import Entry
from qhat.environments.observations.notes import inexact_of
from qhat.environments.observations.reading import read_numbers, read_one, read_value
from qhat.environments.observations.saved import read_layout, read_space, write_observation
from qhat.environments.observations.spaces import entries_of

__all__ = [
    "Entry", "Observations", "entries_of", "inexact_of", "read_layout", "read_numbers", "read_one",
    "read_space", "read_value", "write_observation",
]  # fmt: skip
