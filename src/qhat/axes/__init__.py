"""What an algorithm is made of: for each axis its base class, its values, and the table of them.

These are public names: `from qhat.axes import Head, Categorical`. Importing them imports no JAX. A value
from outside the package derives from the base class (docs/extending.md).
"""

from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue, Schedule
from qhat.axes.behaviour import (
    BEHAVIOURS,
    Behaviour,
    Case,
    Clone,
    Conservative,
    Constrained,
    InSample,
    Margin,
    NoBehaviour,
)
from qhat.axes.bonus import BONUSES, Bonus, Munchausen, NoBonus
from qhat.axes.dense import LAYERS, Dense, Layer, Noisy, Sparse
from qhat.axes.explore import EXPLORES, EpsilonGreedy, Explore, NoExploration, Pink
from qhat.axes.heads import HEADS, Categorical, Expected, Head, HLGauss, Implicit, Quantile
from qhat.axes.heads.base import ExportedOutputs, take
from qhat.axes.horizon import HORIZONS, Fixed, Horizon, Receding
from qhat.axes.joints import JOINTS, Each, Joints, Pairs, Regularised, Together
from qhat.axes.memory import GRU, MEMORIES, Memory, MinGRU, NoMemory, Recurrent
from qhat.axes.merge import MERGES, Dueling, Merge, Plain
from qhat.axes.operations import Op
from qhat.axes.optimiser import OPTIMISERS, Adam, AdamW, ObGD, Optimiser, RAdam, RMSProp
from qhat.axes.policy import POLICIES, Double, ExpectedSarsa, Greedy, Policy, Softmax
from qhat.axes.relabel import RELABELS, Hindsight, NoRelabel, Relabel
from qhat.axes.reset import RESETS, NoReset, Periodic, Reset
from qhat.axes.resolution import RESOLUTIONS, CoarseToFine, Full, Growing, Resolution
from qhat.axes.sampler import SAMPLERS, Prioritised, Sampler, Uniform
from qhat.axes.target import TARGETS, Hard, NoTarget, Soft, Target
from qhat.axes.torso import (
    MLP,
    TORSOS,
    Auto,
    BroNet,
    Convolutions,
    DataEfficient,
    Impala,
    Impoola,
    MinAtar,
    Mnih2013,
    Nature,
    SimBa,
    SimBaV2,
    Torso,
)
from qhat.axes.training import TRAININGS, Logs, Replay, Rollout, Stream, Training

__all__ = [
    "BEHAVIOURS",
    "BONUSES",
    "EXPLORES",
    "GRU",
    "HEADS",
    "HORIZONS",
    "JOINTS",
    "LAYERS",
    "MEMORIES",
    "MERGES",
    "MLP",
    "OPTIMISERS",
    "POLICIES",
    "RELABELS",
    "RESETS",
    "RESOLUTIONS",
    "SAMPLERS",
    "TARGETS",
    "TORSOS",
    "TRAININGS",
    "Actions",
    "Adam",
    "AdamW",
    "Auto",
    "AxisValue",
    "Behaviour",
    "Bonus",
    "BroNet",
    "Case",
    "Categorical",
    "Clone",
    "CoarseToFine",
    "Conservative",
    "Constrained",
    "Convolutions",
    "DataEfficient",
    "Dense",
    "Double",
    "Dueling",
    "Each",
    "EpsilonGreedy",
    "Expected",
    "ExpectedSarsa",
    "Explore",
    "ExportedOutputs",
    "Fixed",
    "Full",
    "Greedy",
    "Growing",
    "HLGauss",
    "Hard",
    "Head",
    "Hindsight",
    "Horizon",
    "Impala",
    "Implicit",
    "Impoola",
    "InSample",
    "Joints",
    "Layer",
    "Logs",
    "Margin",
    "Memory",
    "Merge",
    "MinAtar",
    "MinGRU",
    "Mnih2013",
    "Munchausen",
    "Nature",
    "NoBehaviour",
    "NoBonus",
    "NoExploration",
    "NoMemory",
    "NoRelabel",
    "NoReset",
    "NoTarget",
    "Noisy",
    "ObGD",
    "Op",
    "Optimiser",
    "Pairs",
    "Periodic",
    "Pink",
    "Plain",
    "Policy",
    "Prioritised",
    "Quantile",
    "RAdam",
    "RMSProp",
    "Receding",
    "Recurrent",
    "Regularised",
    "Relabel",
    "Replay",
    "Reset",
    "Resolution",
    "Rollout",
    "Sampler",
    "Schedule",
    "SimBa",
    "SimBaV2",
    "Soft",
    "Softmax",
    "Sparse",
    "Stream",
    "Target",
    "Together",
    "Torso",
    "Training",
    "Uniform",
    "take",
]  # fmt: skip
