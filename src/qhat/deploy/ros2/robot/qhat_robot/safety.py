"""Your own filter between the policy and the motors."""

from __future__ import annotations

from typing import Any


def safety(action: Any, observation: Any) -> Any:
    """Filter an action before it becomes messages.

    Args:
        action: of the environment; return one too.
        observation: of the environment, from which the policy chose it.
    """
    return action
