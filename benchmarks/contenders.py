"""Who takes part in which measurement: each contender is one command."""

from dataclasses import dataclass

QUICK, FULL = 0, 1
"""Which of two sizes of the same measurement."""


@dataclass(frozen=True)
class Contender:
    """One system in one part of the benchmark."""

    part: str
    name: str
    label: str
    script: str
    """Relative to this folder. It prints one JSON object on its last line."""
    arguments: tuple[str, ...]
    size: tuple[str, int, int]
    """The flag that says how much to measure, with its quick and its full value."""
    group: str = ""
    """Contenders of one group are one system under other settings; the best one stands for it."""
    seeded: bool = False
    """Whether round r gets `--seed r`."""
    replay_ratio: float = 1.0
    """Gradient updates per environment step that it has to have done."""

    @property
    def home(self) -> str:
        """The environment that it runs in: qhat's, or one of the peers'."""
        if not self.script.startswith("peers/"):
            return "qhat"
        return next((name for name in ("rejax", "cluster") if name in self.script), "peers")

    def command(self, size: int, turn: int) -> list[str]:
        """Return the script's arguments for round `turn`."""
        seed = ["--seed", str(turn)] if self.seeded else []
        return [*self.arguments, self.size[0], str(self.size[1 + size]), *seed]


def _threads(
    part: str,
    name: str,
    label: str,
    script: str,
    arguments: tuple[str, ...],
    size: tuple[str, int, int],
    seeded: bool = False,
    replay_ratio: float = 1.0,
) -> list[Contender]:
    """A contender with 1 and with 2 threads: which one is faster depends on the machine."""
    return [
        Contender(
            part,
            f"{name}-t{threads}",
            f"{label}, {threads} thread{'s' * (threads > 1)}",
            script,
            (*arguments, "--threads", str(threads)),
            size,
            group=name,
            seeded=seeded,
            replay_ratio=replay_ratio,
        )
        for threads in (1, 2)
    ]


def _qhat(
    name: str,
    label: str,
    variant: str,
    seeds: int = 1,
    part: str = "throughput",
    replay_ratio: float = 1.0,
    steps: tuple[int, int] = (2_000, 50_000),
) -> Contender:
    arguments = ("--variant", variant, "--seeds", str(seeds))
    size = ("--steps", *steps)
    return Contender(part, name, label, "qhat_throughput.py", arguments, size, replay_ratio=replay_ratio)


_STEPS = ("--steps", 500, 6_000)
_PIXELS = ("--steps", 800, 4_000)
_CHAPTER = "peers/chapter_throughput.py"
_TRAIN = ("--steps", 3_000, 50_000)

THROUGHPUT = [
    *_threads(
        "throughput",
        "sb3",
        "Stable-Baselines3 DQN (with clip)",
        "peers/sb3_throughput.py",
        (),
        _STEPS,
    ),
    *_threads(
        "throughput",
        "sb3-qr",
        "sb3-contrib QR-DQN (51 quantiles)",
        "peers/sb3_throughput.py",
        ("--algorithm", "qr_dqn"),
        _STEPS,
    ),
    *_threads("throughput", "tianshou-dqn", "tianshou DQN", "peers/tianshou_dqn_throughput.py", (), _STEPS),
    Contender("throughput", "sbx-dqn", "sbx DQN", "peers/sbx_throughput.py", (), _STEPS),
    Contender("throughput", "rejax-dqn", "rejax DQN", "peers/rejax_throughput.py", (), _STEPS),
    *_threads(
        "throughput",
        "chapter-rainbow",
        'the chapter\'s "RainbowDQN" (Double, dueling, clip)',
        _CHAPTER,
        ("--agent", "rainbow"),
        _STEPS,
    ),
    *_threads(
        "throughput",
        "chapter-per",
        'the chapter\'s "PERDQNAgent" (Double, PER, clip)',
        _CHAPTER,
        ("--agent", "per"),
        _STEPS,
    ),
    *_threads(
        "throughput",
        "tianshou-rainbow",
        "tianshou's Rainbow (51 atoms, dueling, noisy, PER, n = 3)",
        "peers/tianshou_rainbow_throughput.py",
        (),
        ("--steps", 300, 3_000),
    ),
    _qhat("qhat-dqn", "qhat DQN", "dqn"),
    _qhat("qhat-qr", "qhat QR-DQN (51 quantiles)", "qr"),
    _qhat("qhat-double", "qhat Double, clip", "double"),
    _qhat("qhat-per", "qhat DQN, PER", "per"),
    _qhat("qhat-chapter-rainbow", "qhat Double, dueling, clip", "chapter-rainbow"),
    _qhat("qhat-chapter-per", "qhat Double, PER, clip", "chapter-per"),
    _qhat("qhat-rainbow", "qhat Rainbow (51 atoms, Double, dueling, noisy, PER, n = 3)", "rainbow"),
    _qhat("qhat-dqn-8", "qhat DQN, 8 seeds in sum", "dqn", 8),
    _qhat("qhat-per-8", "qhat DQN, PER, 8 seeds in sum", "per", 8),
]


ENVIRONMENTS = [
    *_threads(
        "environments",
        "sb3-host",
        "CartPole-v1 · Stable-Baselines3 DQN",
        "peers/sb3_throughput.py",
        (),
        _STEPS,
    ),
    _qhat("qhat-host", "CartPole-v1 · qhat DQN, Gymnasium on the host loop", "host", part="environments"),
    *_threads(
        "environments",
        "sb3-lunarlander",
        "LunarLander-v3 · Stable-Baselines3 DQN",
        "peers/sb3_throughput.py",
        ("--task", "lunarlander"),
        _STEPS,
        replay_ratio=0.25,
    ),
    _qhat(
        "qhat-lunarlander",
        "LunarLander-v3 · qhat DQN, EnvPool compiled",
        "lunarlander",
        part="environments",
        replay_ratio=0.25,
    ),
    *_threads(
        "environments",
        "torch_dqn-minatar",
        "Breakout-MinAtar · DQN of one file in PyTorch",
        "peers/torch_dqn_throughput.py",
        ("--task", "minatar"),
        _STEPS,
        replay_ratio=0.25,
    ),
    _qhat(
        "qhat-minatar",
        "Breakout-MinAtar · qhat DQN",
        "minatar",
        part="environments",
        replay_ratio=0.25,
    ),
    *(
        contender
        for name, label in (("pong", "Pong-v5"), ("pong-8", "Pong-v5, 8 at once"))
        for contender in (
            *_threads(
                "environments",
                f"sb3-{name}",
                f"{label} · Stable-Baselines3 DQN, CnnPolicy",
                "peers/sb3_throughput.py",
                ("--task", name),
                _PIXELS,
                replay_ratio=0.25,
            ),
            *_threads(
                "environments",
                f"torch-{name}",
                f"{label} · DQN of one file in PyTorch",
                "peers/torch_dqn_throughput.py",
                ("--task", name),
                _PIXELS,
                replay_ratio=0.25,
            ),
            *_threads(
                "environments",
                f"tianshou-{name}",
                f"{label} · tianshou DQN, EnvPool",
                "peers/tianshou_pong_throughput.py",
                ("--task", name),
                _PIXELS,
                replay_ratio=0.25,
            ),
            _qhat(
                f"qhat-{name}",
                f"{label} · qhat DQN, EnvPool compiled",
                name,
                part="environments",
                replay_ratio=0.25,
                steps=_PIXELS[1:],
            ),
        )
    ),
]


def _replay(name: str, label: str, script: str, quick: int, full: int, *arguments: str) -> Contender:
    return Contender("replay", name, label, script, arguments, ("--iterations", quick, full))


REPLAY = [
    _replay("cpprb", "cpprb, full sample", "peers/replay_cpprb.py", 500, 10_000),
    _replay("tianshou", "tianshou, tree alone", "peers/replay_tianshou.py", 500, 10_000),
    _replay("flashbax", "flashbax, sample without weights", "peers/replay_flashbax.py", 100, 5_000),
    _replay("chapter-replay", "the chapter's memory, full sample", "peers/replay_chapter.py", 50, 1_000),
    _replay("qhat-tree", "qhat, tree alone", "replay.py", 500, 20_000, "--what", "tree"),
    _replay("qhat-replay", "qhat, full sample", "replay.py", 500, 20_000, "--what", "full"),
]

TIME_TO_SCORE = [
    *_threads(
        "time-to-score",
        "sb3-zoo",
        "Stable-Baselines3 DQN, rl-zoo's settings",
        "peers/sb3_time_to_score.py",
        (),
        _TRAIN,
        seeded=True,
    ),
    Contender(
        "time-to-score",
        "qhat-train",
        "qhat train, its defaults",
        "time_to_score.py",
        (),
        _TRAIN,
        seeded=True,
    ),
]

_UPDATES = ("--updates", 5, 20)
UPDATES = [
    contender
    for network, label in (("nature", "Nature"), ("impala", "Impala"), ("minatar", "MinAtar"))
    for contender in (
        *_threads(
            "updates",
            f"torch-{network}",
            f"{label} · PyTorch",
            "peers/torch_update.py",
            ("--network", network),
            _UPDATES,
        ),
        *_threads(
            "updates",
            f"torch-{network}-last",
            f"{label} · PyTorch, channels last",
            "peers/torch_update.py",
            ("--network", network, "--channels-last"),
            _UPDATES,
        ),
        *_threads(
            "updates",
            f"qhat-{network}",
            f"{label} · qhat",
            "qhat_update.py",
            ("--network", network),
            _UPDATES,
        ),
    )
]

CONTENDERS = (*THROUGHPUT, *ENVIRONMENTS, *UPDATES, *REPLAY, *TIME_TO_SCORE)
# Results are kept by name.
assert len({contender.name for contender in CONTENDERS}) == len(CONTENDERS)
PARTS = ("throughput", "environments", "updates", "replay", "time-to-score")


def _cluster(name: str, label: str, script: str) -> list[Contender]:
    """A system on a Ray cluster: to a score with 2 runners, and a slow task with 2 and with 16."""

    def one(part: str, task: str, runners: int, size: tuple[str, int, int]) -> Contender:
        arguments = ("--task", task, "--runners", str(runners))
        return Contender(part, f"{name}-{part}", label, script, arguments, size, seeded=True)

    return [
        one("cartpole", "cartpole", 2, ("--max-seconds", 60, 600)),
        one("slow-2", "slow", 2, ("--steps", 1_000, 3_000)),
        one("slow-16", "slow", 16, ("--steps", 4_000, 20_000)),
    ]


CLUSTER = (
    *_cluster("qhat", "qhat, its defaults", "cluster_qhat.py"),
    *_cluster("rllib", "RLlib DQN", "peers/rllib_cluster.py"),
    *_cluster("torchrl", "TorchRL DQN", "peers/torchrl_cluster.py"),
)
"""Measured by `cluster_peers.py`, on a page of its own."""
CLUSTER_PARTS = ("cartpole", "slow-2", "slow-16")
