"""The named algorithms, each one value. Adding one is adding a value here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from qhat.axes.behaviour import Clone, Conservative, Constrained, InSample, Margin
from qhat.axes.bonus import Munchausen
from qhat.axes.dense import Noisy, Sparse
from qhat.axes.explore import EpsilonGreedy, NoExploration
from qhat.axes.heads import Categorical, Expected, HLGauss, Implicit, Quantile
from qhat.axes.joints import Each, Pairs, Regularised
from qhat.axes.memory import MinGRU
from qhat.axes.merge import Dueling
from qhat.axes.optimiser import Adam, AdamW, ObGD, RAdam
from qhat.axes.policy import Double, Greedy, Softmax
from qhat.axes.relabel import Hindsight
from qhat.axes.resolution import CoarseToFine, Growing
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Hard, NoTarget, Soft
from qhat.axes.torso import Auto, BroNet, SimBa, SimBaV2
from qhat.axes.training import Logs, Rollout, Stream
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError, near_miss

# What every paper's recipe below has in common: settings of a small control task, the same for all, so
# that a difference between two of them is the paper's idea. (The papers' own step sizes, replay sizes
# and exploration are Atari's.)
_small = Recipe(
    hidden=(128, 128),
    batch_size=64,
    explore=EpsilonGreedy(start=1.0, end=0.1),
    learning_rate=1e-3,
    learning_rate_end=1e-4,
    optimiser=Adam(1e-5),
    max_gradient_norm=10.0,
)

dqn = replace(_small, paper="https://doi.org/10.1038/nature14236")
double_dqn = replace(dqn, policy=Double(), paper="https://arxiv.org/abs/1509.06461")
dueling_dqn = replace(dqn, merge=Dueling(), paper="https://arxiv.org/abs/1511.06581")
per_dqn = replace(dqn, policy=Double(), sampler=Prioritised(), paper="https://arxiv.org/abs/1511.05952")
nstep_dqn = replace(dqn, n_step=3, paper="https://arxiv.org/abs/1901.07510")
noisy_dqn = replace(dqn, dense=Noisy(), explore=NoExploration(), paper="https://arxiv.org/abs/1706.10295")
c51 = replace(dqn, head=Categorical(), paper="https://arxiv.org/abs/1707.06887")
qr_dqn = replace(dqn, head=Quantile(), paper="https://arxiv.org/abs/1710.10044")
iqn = replace(dqn, head=Implicit(), paper="https://arxiv.org/abs/1806.06923")
m_dqn = replace(dqn, policy=Softmax(), bonus=Munchausen(), paper="https://arxiv.org/abs/2007.14430")
m_iqn = replace(m_dqn, head=Implicit())
hl_gauss_dqn = replace(dqn, head=HLGauss(), paper="https://arxiv.org/abs/2403.03950")
# The Rainbow paper, too, takes smaller steps than DQN's (its table 1).
rainbow = replace(
    dqn,
    head=Categorical(),
    policy=Double(),
    merge=Dueling(),
    dense=Noisy(),
    n_step=3,
    sampler=Prioritised(alpha=0.5),
    explore=NoExploration(),
    learning_rate=5e-4,
    paper="https://arxiv.org/abs/1710.02298",
)
# Noise alone does not explore here: the mean over fractions quiets it, and seeds stay at 120 of 500.
rainbow_iqn = replace(
    rainbow, head=Implicit(), explore=dqn.explore, paper="https://arxiv.org/abs/1908.04683"
)

# Robots with several joints. The paper's network is twice as wide and its step size a tenth from the start,
# for runs ten times as long.
decqn = Recipe(
    policy=Double(),
    n_step=3,
    bins=(2,),
    hidden=(256, 256),
    layer_norm=True,
    target=Soft(0.005),
    explore=EpsilonGreedy(start=1.0, end=0.1, steps=10_000, per_factor=True),
    batch_size=64,
    num_envs=8,
    replay_ratio=0.25,
    replay_capacity=250_000,
    learning_rate=1e-3,
    learning_rate_end=1e-4,
    learning_rate_steps=80_000,
    optimiser=Adam(1e-5),
    max_gradient_norm=40.0,
    paper="https://arxiv.org/abs/2210.12566",
)
bdq = replace(
    decqn,
    joints=Each(),
    merge=Dueling(),
    sampler=Prioritised(),
    n_step=1,
    bins=(33,),
    replay_ratio=0.5,
    max_gradient_norm=10.0,
    paper="https://arxiv.org/abs/1711.08946",
)
decqn_rainbow = replace(decqn, head=Categorical(), sampler=Prioritised(beta=0.2))
# A value for each pair of commands: a coordination graph of all joints.
decqn_pairs = replace(decqn, joints=Pairs(), paper="https://jmlr.org/papers/v7/kok06a.html")
# One network of REValueD's ensemble.
decqn_regularised = replace(decqn, joints=Regularised(), paper="https://arxiv.org/abs/2401.08850")
# Fine commands: they come into use during training, or share values with those nearby.
decqn_growing = replace(decqn, bins=(9,), resolution=Growing(), paper="https://arxiv.org/abs/2404.04253")
decqn_coarse = replace(
    decqn, bins=(27,), resolution=CoarseToFine(), paper="https://arxiv.org/abs/2407.07787"
)
# The networks of two actor-critic algorithms, under decoupled Q-learning.
bro = replace(
    decqn,
    torso=BroNet(width=128),
    hidden=(),
    layer_norm=False,
    optimiser=AdamW(),
    learning_rate=5e-4,
    learning_rate_end=5e-5,
    paper="https://arxiv.org/abs/2405.16158",
)
simba = replace(bro, torso=SimBa(), normalise=True, paper="https://arxiv.org/abs/2410.09754")
# Its weights have a fixed size: no decay.
simba2 = replace(
    simba, torso=SimBaV2(), optimiser=Adam(), learning_rate=3e-4, paper="https://arxiv.org/abs/2502.15280"
)

# A recurrent Q-network that learns from stored states and burn-in as R2D2 does; a minimal GRU is in place
# of the LSTM.
drqn = replace(
    dqn,
    policy=Double(),
    memory=MinGRU(),
    n_step=5,
    num_envs=16,
    batch_size=256,
    replay_ratio=1 / 8,
    learning_rate=5e-4,
    paper="https://arxiv.org/abs/1507.06527",
)

# No replay and no target network: λ-returns of the last steps of many environments. The paper's optimiser
# and normalisation, with fewer environments and steps as long as for a small control task.
pqn = Recipe(
    head=Expected(delta=None),
    training=Rollout(),
    target=NoTarget(),
    torso=Auto(layer_norm=True),
    hidden=(128, 128),
    layer_norm=True,
    num_envs=16,
    batch_size=64,
    replay_ratio=1 / 16,
    learning_rate=1e-3,
    learning_rate_end=1e-5,
    optimiser=RAdam(),
    max_gradient_norm=10.0,
    explore=EpsilonGreedy(end=0.05, fraction=0.1),
    paper="https://arxiv.org/abs/2407.04811",
)
# As the authors' program trains it in MinAtar (purejaxql, pqn_minatar.yaml): 2 passes of 32 batches.
pqn_minatar = replace(
    pqn,
    hidden=(128,),
    num_envs=128,
    batch_size=128,
    replay_ratio=2 / 128,
    learning_rate=5e-4,
    learning_rate_end=1e-20,
)

# One step at a time, and nothing stored. Widths, ε and all other numbers are of the authors' script for
# classic control; of pictures they have one hidden layer of 128 and `epsilon:fraction=0.2`.
stream_q = Recipe(
    head=Expected(delta=None),
    training=Stream(),
    target=NoTarget(),
    optimiser=ObGD(),
    dense=Sparse(),
    hidden=(32, 32),
    layer_norm=True,
    normalise=True,
    n_step_cut=0.0,
    batch_size=1,
    learning_starts=0,
    learning_rate=1.0,
    explore=EpsilonGreedy(end=0.01, fraction=0.05),
    paper="https://arxiv.org/abs/2410.14606",
)

# From logs alone. A step of the run is an update. The loss of `cql` is squared: with the Huber loss and
# α = 1 the policy is little more than what was recorded (docs/results/offline.md).
_from_logs = replace(double_dqn, training=Logs())
cql = replace(
    _from_logs,
    head=Expected(delta=None),
    n_step=5,
    behaviour=Conservative(),
    paper="https://arxiv.org/abs/2006.04779",
)
bcq = replace(_from_logs, behaviour=Constrained(), paper="https://arxiv.org/abs/1910.01708")
iql = replace(
    _from_logs,
    policy=Greedy(),
    behaviour=InSample(),
    target=Soft(tau=0.005),
    paper="https://arxiv.org/abs/2110.06169",
)
# What they are compared with: the recorded actions, and nothing of their returns.
bc = replace(
    _from_logs,
    policy=Greedy(),
    behaviour=Clone(),
    paper="https://doi.org/10.1162/neco.1991.3.1.88",
)

# From demonstrations and the run's own steps. The paper draws both from one replay, in which demonstrations
# have a larger priority, and adds the one-step loss; here a share of each batch is fixed, and the target is
# the n-step return.
dqfd = replace(
    dueling_dqn,
    policy=Double(),
    sampler=Prioritised(alpha=0.4, beta=0.6, epsilon=1e-3),
    n_step=10,
    behaviour=Margin(),
    demo_share=0.5,
    optimiser=AdamW(decay=1e-5),
    explore=EpsilonGreedy(start=0.1, end=0.01),
    paper="https://arxiv.org/abs/1704.03732",
)

# Goals: what an episode achieved is a goal that it reached. Its positions are all of one small space, and
# its velocities are not.
her = replace(
    decqn,
    relabel=Hindsight(),
    n_step=1,
    bins=(3,),
    gamma=0.98,
    normalise=True,
    paper="https://arxiv.org/abs/1707.01495",
)

# The textbook chapter's agents: its algorithms (squared error, and where it clips, norm 1), with the
# settings of the others. Its own settings do not hold: docs/from-the-chapter.md.
_chapter = replace(_small, head=Expected(delta=None))
chapter_dqn = _chapter
chapter_double = replace(_chapter, policy=Double(), max_gradient_norm=1.0)
chapter_dueling = replace(_chapter, merge=Dueling())
chapter_rainbow = replace(chapter_double, merge=Dueling())
chapter_per = replace(chapter_double, sampler=Prioritised())
chapter_rainbow_per = replace(chapter_rainbow, sampler=Prioritised())

# What we would recommend to a friend; why each part is there: docs/default-recipe.md.
qhat = replace(
    dqn,
    hidden=(64, 64),
    policy=Double(),
    n_step=3,
    n_step_cut=0.1,
    target=Hard(every=500),
    gamma=0.995,
    explore=EpsilonGreedy(start=1.0, end=0.1, fraction=0.25),
    paper="",
)

# The chapter's Rainbow (Double + dueling + PER) with the settings above.
rainbow_lite = replace(qhat, merge=Dueling(), sampler=Prioritised())

DEFAULT = "qhat"
"""The recipe of `qhat train` unless another is named."""

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "qhat": qhat,
        "rainbow_lite": rainbow_lite,
        "dqn": dqn,
        "double_dqn": double_dqn,
        "dueling_dqn": dueling_dqn,
        "per_dqn": per_dqn,
        "nstep_dqn": nstep_dqn,
        "noisy_dqn": noisy_dqn,
        "c51": c51,
        "qr_dqn": qr_dqn,
        "iqn": iqn,
        "m_dqn": m_dqn,
        "m_iqn": m_iqn,
        "hl_gauss_dqn": hl_gauss_dqn,
        "rainbow": rainbow,
        "rainbow_iqn": rainbow_iqn,
        "decqn": decqn,
        "bdq": bdq,
        "decqn_rainbow": decqn_rainbow,
        "decqn_pairs": decqn_pairs,
        "decqn_regularised": decqn_regularised,
        "decqn_growing": decqn_growing,
        "decqn_coarse": decqn_coarse,
        "bro": bro,
        "simba": simba,
        "simba2": simba2,
        "pqn": pqn,
        "drqn": drqn,
        "pqn_minatar": pqn_minatar,
        "stream_q": stream_q,
        "her": her,
        "cql": cql,
        "bcq": bcq,
        "iql": iql,
        "bc": bc,
        "dqfd": dqfd,
        "chapter_dqn": chapter_dqn,
        "chapter_double": chapter_double,
        "chapter_dueling": chapter_dueling,
        "chapter_rainbow": chapter_rainbow,
        "chapter_per": chapter_per,
        "chapter_rainbow_per": chapter_rainbow_per,
    }
)


def __dir__() -> list[str]:
    """Return what completion offers: the recipes, and how they are looked up."""
    return sorted((*RECIPES, "DEFAULT", "RECIPES", "Recipe", "get"))


def get(name: str) -> Recipe:
    """Return a recipe by name. Raises `UsageError` with the near miss."""
    if name not in RECIPES:
        raise UsageError(
            f"Recipe '{name}' is not known; expected one of {', '.join(RECIPES)}."
            + near_miss(name, RECIPES)
        )
    return RECIPES[name]
