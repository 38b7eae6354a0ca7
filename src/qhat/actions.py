"""Action spaces as the engine sees them: `factors × choices`."""

from __future__ import annotations

import dataclasses
import math

from qhat.errors import require


@dataclasses.dataclass(frozen=True)
class Actions:
    """An action is one choice per factor: a vector of integers of shape `[factors]`.

    `Discrete(n)` has one factor with n choices. Q(s, a) is the mean over the factors of
    Q_f(s, a_f) (Seyde et al. 2022, arXiv:2210.12566, eq. 3).
    """

    choices: tuple[int, ...]
    """Number of choices of each factor."""

    def __post_init__(self):
        require(
            len(self.choices) > 0 and all(n >= 1 for n in self.choices),
            f"Action choices are {self.choices}; expected one positive whole number per factor.",
        )

    @property
    def factors(self) -> int:
        """F, the number of factors."""
        return len(self.choices)

    @property
    def width(self) -> int:
        """C, the largest number of choices of a factor: the tensors' second axis."""
        return max(self.choices)

    @property
    def exists(self) -> tuple[tuple[bool, ...], ...] | None:
        """`[F, C]`, which choices each factor has; `None` where all factors have as many."""
        if len(set(self.choices)) == 1:
            return None
        return tuple(tuple(choice < count for choice in range(self.width)) for count in self.choices)

    @property
    def all_legal(self) -> tuple[tuple[bool, ...], ...]:
        """`[F, C]`, the mask that allows every choice there is."""
        return self.exists or ((True,) * self.width,) * self.factors

    @property
    def joint(self) -> int:
        """Number of joint actions."""
        return math.prod(self.choices)
