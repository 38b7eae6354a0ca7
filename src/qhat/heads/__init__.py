"""How a return is represented."""

from qhat.heads.base import Head
from qhat.heads.expected import Expected

HEADS: tuple[type[Head], ...] = (Expected,)

__all__ = ["HEADS", "Expected", "Head"]
