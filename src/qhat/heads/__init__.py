"""How a return is represented."""

from qhat.heads.base import Head
from qhat.heads.categorical import Categorical, HLGauss
from qhat.heads.expected import Expected
from qhat.heads.quantile import Implicit, Quantile

HEADS: tuple[type[Head], ...] = (Expected, Categorical, Quantile, Implicit, HLGauss)

__all__ = ["HEADS", "Categorical", "Expected", "HLGauss", "Head", "Implicit", "Quantile"]
