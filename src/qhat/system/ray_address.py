"""Addresses of Ray clusters, checked before Ray is imported."""

from __future__ import annotations

import re
from typing import Any

from qhat.system.errors import UsageError, near_miss, setting
from qhat.system.files import quote
from qhat.system.machine import require_installed

AUTO, LOCAL = "auto", "local"
WORDS = (AUTO, LOCAL)
CLIENT = "ray://"
ADDRESS = re.compile(r"([^\s/:]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")
"""Host and port of a head node."""


def require_address(address: Any) -> None:
    """Raise `UsageError` for what is no address of a cluster, before Ray is imported."""
    if isinstance(address, str) and address.startswith(CLIENT):
        raise UsageError(
            f"{setting('cluster')} is {quote(address)}, the address of a client, which cannot read results"
            " while they are made; expected HOST:PORT, on a machine that is a node of the cluster, or auto."
        )
    good = isinstance(address, str) and (address in WORDS or ADDRESS.fullmatch(address))
    if not good:
        near = near_miss(address, WORDS) if isinstance(address, str) else ""
        raise UsageError(
            f"{setting('cluster')} is {quote(address)}; expected auto (the cluster that this machine is a"
            f" node of), local (this machine alone), or HOST:PORT of a head node, as 10.0.0.1:6379.{near}"
        )
    require_installed("ray", f"{setting('cluster')} needs", "Ray")
