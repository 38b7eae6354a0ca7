"""The axis `head`: representations of the return."""

from qhat.axes.heads.base import Head
from qhat.axes.heads.categorical import Categorical, HLGauss
from qhat.axes.heads.expected import Expected
from qhat.axes.heads.quantile import Implicit, Quantile

HEADS: tuple[type[Head], ...] = (Expected, Categorical, Quantile, Implicit, HLGauss)

__all__ = ["HEADS", "Categorical", "Expected", "HLGauss", "Head", "Implicit", "Quantile"]
