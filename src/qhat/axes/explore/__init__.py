"""The axis `explore`: how actions are chosen while training."""

from qhat.axes.explore.base import Explore, chooses_one
from qhat.axes.explore.epsilon import EpsilonGreedy
from qhat.axes.explore.none import NoExploration
from qhat.axes.explore.pink import Pink

EXPLORES: tuple[type[Explore], ...] = (EpsilonGreedy, Pink, NoExploration)

__all__ = ["EXPLORES", "EpsilonGreedy", "Explore", "NoExploration", "Pink", "chooses_one"]
