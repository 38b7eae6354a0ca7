"""The targets that qhat ships."""

from __future__ import annotations

from collections.abc import Sequence

from qhat.deploy.cpp import Cpp
from qhat.deploy.learner import Learner
from qhat.deploy.ros2 import Ros2
from qhat.deploy.target import ExportTarget
from qhat.deploy.web import Web
from qhat.system.errors import near_miss, require, setting
from qhat.system.files import quote

TARGETS: tuple[ExportTarget, ...] = (Ros2(), Web(), Cpp(), Learner())
ALWAYS = "onnx"
"""What every export has."""


def targets_of(given: str | ExportTarget | Sequence[str | ExportTarget]) -> tuple[ExportTarget, ...]:
    """Return export targets by their names, `onnx`, `ros2`, `web`, `cpp` or `learner`, or as they are.

    Raises:
        UsageError: nothing has such a name.
    """
    named = {target.name: target for target in TARGETS}
    several = [given] if isinstance(given, str | ExportTarget) else given
    found = []
    for one in several:
        if isinstance(one, ExportTarget):
            found.append(one)
        elif one != ALWAYS:
            known = [ALWAYS, *named]
            require(
                one in named,
                f"{setting('targets')} has {quote(one)}; expected {', '.join(known)}, or an ExportTarget."
                + near_miss(str(one), known),
            )
            found.append(named[one])
    return tuple(found)
