"""What an export may be written as, beside the folder that every export is."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class ExportTarget(abc.ABC):
    """Writes something more from an exported folder that is proven already.

    `qhat export` has a flag for each of `TARGETS`; `qhat.export(run, targets=...)` takes any, also from
    outside the package.
    """

    name: ClassVar[str]
    """Name of the flag, and of the result."""

    @abc.abstractmethod
    def require(self, config: Mapping[str, Any]) -> None:
        """Raise `UsageError` for a run that cannot be written like this, before anything is computed.

        Args:
            config: of the run, as config.json has it.
        """

    @abc.abstractmethod
    def write(self, folder: Path) -> Path:
        """Write into a folder that has policy.json, weights.safetensors, policy.onnx and the runner.

        Returns:
            what was written.
        """

    def next_step(self, path: Path) -> str:
        """Return the line that tells a user what to do with what was written."""
        return f"ls {path}"
