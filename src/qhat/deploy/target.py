"""The interface of export targets: further files written from an exported folder."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar


class ExportTarget(abc.ABC):
    """Writes further files from an exported folder that has passed its proof.

    `qhat export` has a flag for each of `TARGETS`; `qhat.export(run, targets=...)` takes any, also from
    outside the package.
    """

    name: ClassVar[str]
    """Name of the flag, and of the result."""

    @abc.abstractmethod
    def require(self, config: Mapping[str, Any]) -> None:
        """Raise `UsageError` if this target cannot be written for the run, before anything is computed.

        Args:
            config: the run's configuration, as in config.json.
        """

    def check(self, about: Mapping[str, Any]) -> None:
        """Raise `UsageError` if this target cannot be written for the policy, before anything is written.

        Args:
            about: policy.json without what the proof adds: the observation and the actions.
        """
        return

    @abc.abstractmethod
    def write(self, folder: Path) -> Path:
        """Write into a folder that has policy.json, weights.safetensors, policy.onnx and the runner.

        Returns:
            the file or folder that was written.
        """

    def next_step(self, path: Path) -> str:
        """Return a line that tells the user what to do with the result at `path`."""
        return f"ls {path}"
