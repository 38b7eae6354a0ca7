"""The axis `torso`: from an observation to a feature vector, before the hidden layers."""

from qhat.axes.torso.auto import Auto
from qhat.axes.torso.base import Torso
from qhat.axes.torso.frames import Convolutions, DataEfficient, MinAtar, Mnih2013, Nature
from qhat.axes.torso.hyperspherical import SimBaV2
from qhat.axes.torso.impala import Impala, Impoola
from qhat.axes.torso.mlp import MLP
from qhat.axes.torso.pictures import as_image, image_shape
from qhat.axes.torso.residual import BroNet, SimBa

TORSOS: tuple[type[Torso], ...] = (
    Auto, MLP, BroNet, SimBa, SimBaV2, MinAtar, Nature, Mnih2013, DataEfficient, Impala,
    Impoola,
)  # fmt: skip

__all__ = [
    "MLP", "TORSOS", "Auto", "BroNet", "Convolutions", "DataEfficient", "Impala", "Impoola", "MinAtar",
    "Mnih2013", "Nature", "SimBa", "SimBaV2", "Torso", "as_image", "image_shape",
]  # fmt: skip
