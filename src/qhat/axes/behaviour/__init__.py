"""The axis `behaviour`: what the actions of those who recorded the data say, beside their returns."""

from qhat.axes.behaviour.base import Behaviour, Case, ExportedPreferences, surprise
from qhat.axes.behaviour.streams import Constrained, InSample
from qhat.axes.behaviour.terms import Clone, Conservative, Margin, NoBehaviour

BEHAVIOURS: tuple[type[Behaviour], ...] = (NoBehaviour, Conservative, Clone, Constrained, InSample, Margin)

__all__ = ["BEHAVIOURS", "Behaviour", "Case", "Clone", "Conservative", "Constrained", "ExportedPreferences",
           "InSample", "Margin", "NoBehaviour", "surprise"]  # fmt: skip
