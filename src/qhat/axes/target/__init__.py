"""The axis `target`: how the target network follows the online network."""

from qhat.axes.target.network import Hard, Soft, Target
from qhat.axes.target.none import NoTarget

TARGETS: tuple[type[Target], ...] = (Hard, Soft, NoTarget)

__all__ = ["TARGETS", "Hard", "NoTarget", "Soft", "Target"]
