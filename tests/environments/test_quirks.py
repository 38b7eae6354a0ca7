"""Protects that `qhat doctor` and training say the same of an environment, and of each in one sentence.

A diagnosis by another code path raises where training explains, and refuses what training takes.
"""

import shlex
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import quirks
from qhat import Agent, recipes
from qhat.agent.arguments import read_spaces
from qhat.axes.actions import Actions
from qhat.axes.masks import read_mask
from qhat.cli import checkup, doctor
from qhat.cli.parsing import read
from qhat.environments.catalogue import find
from qhat.environments.gymnasium import probe
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.probe import Findings
from qhat.environments.make import make_any
from qhat.environments.make_args import MakeArgs
from qhat.environments.user_envs import source_of
from qhat.system.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch):
    """Look for so many steps, however fast the machine; test_doctor.py asks for the size of a replay."""
    monkeypatch.setattr(checkup, "_replay_bytes", lambda _: 0)
    monkeypatch.setattr(checkup, "STEPS", 25)
    monkeypatch.setattr(probe, "PROBED", 40)


def id_of(kind: Any) -> str:
    return f"gym:quirks:{kind.__name__}-v0"


def looked_at(kind: Any) -> Findings:
    return checkup.examine(id_of(kind), {}, 60.0).findings


def trained_in(kind: Any) -> GymnasiumEnvironment:
    """Make it and step it as the host loop does, by legal actions."""
    made = make_any(id_of(kind), 2)
    assert isinstance(made, GymnasiumEnvironment)
    made.start()
    for _ in range(25):
        legal = made.legal()
        choices = made.spec.actions.choices
        action = np.zeros((1, 2, len(choices)), int) if legal is None else legal.argmax(-1)
        made.send(action)
        assert np.isfinite(made.receive().reward).all()
    made.close()
    return made


def said_by(what: Any, kind: Any) -> str:
    """Return the sentence that refuses it; empty where it is taken. Exit status 2 is `UsageError`'s."""
    try:
        what(kind)
    except UsageError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("kind", quirks.ALL, ids=lambda kind: kind.__name__)
def test_doctor_and_training_agree(kind: Any):
    sentences = {what: said_by(what, kind) for what in (looked_at, trained_in)}
    for sentence in sentences.values():
        assert bool(sentence) == bool(kind.says), sentence
        assert kind.says in sentence
        if kind.says:
            assert f"'quirks:{kind.__name__}-v0'" in sentence
            assert sentence.startswith(f"Environment 'quirks:{kind.__name__}-v0'"), "named by its id"


OF_SPACES = (
    "Endless", "NamedActions", "Letters", "LetterWithin", "Growing", "Net", "Nothing", "TooMany",
    "Shapeless",
)  # fmt: skip
"""Refused for their spaces, which an agent is given too."""


@pytest.mark.parametrize("kind", quirks.ALL, ids=lambda kind: kind.__name__)
def test_an_agent_takes_the_spaces_that_training_takes(kind: Any):
    spaces = kind.observation_space, kind.action_space
    if kind.__name__ in OF_SPACES:
        with pytest.raises(UsageError) as refused:
            Agent(*spaces)
        if kind is quirks.Endless:
            # The remedy is another one: an agent has no wrappers.
            assert "where a joint has no bounds; expected finite ones" in str(refused.value)
        elif kind is not quirks.Shapeless:
            name, _, of_agent = str(refused.value).partition("gent")
            of_training = said_by(trained_in, kind).removeprefix(f"Environment 'quirks:{kind.__name__}-v0'")
            assert name == "The a"
            assert of_training.startswith(of_agent.removesuffix("."))
        return
    layout, actions = read_spaces(*spaces, recipes.get(recipes.DEFAULT))
    if not kind.says and not kind.masks.startswith("obs["):
        made = make_any(id_of(kind), 1)
        assert (layout, actions) == (made.spec.layout, made.spec.actions)


@pytest.mark.parametrize(
    "kind", [each for each in quirks.ALL if getattr(each, "masks", "") and not each.says]
)
def test_masks_are_found_wherever_they_are_and_are_no_observation(kind: Any):
    findings = looked_at(kind)
    assert findings.masks == kind.masks
    made = trained_in(kind)
    assert made.spec.masked
    assert made.spec.shape == (2,)
    for mode in AutoresetMode:
        envs = SyncVectorEnv([kind] * 2, autoreset_mode=mode)
        assert source_of(envs).make(MakeArgs(2)).spec.shape == (2,)
        envs.close()


def test_what_may_surprise_is_said():
    def warned(kind: Any) -> str:
        found = checkup.examine(id_of(kind), {}, 60.0)
        return " ".join((*found.notes, *found.findings.warnings))

    assert "'clock' (1,) float32 0 to 1e+06: the numbers are shown" in warned(quirks.Uneven)
    assert "a network sees the first alone" not in warned(quirks.Uneven), "it does not: see the note"
    assert "'clock' up to 9e+05 beside 'arm' up to" in warned(quirks.UnevenUnsaid)
    assert "writes every observation over the one before" in warned(quirks.Rewritten)
    assert "shows whole numbers up to 1.07e+09; a network reads them" in warned(quirks.Wide)
    assert "beyond the bounds" in warned(quirks.Beyond)
    assert "shows 'action_mask' (3,), which is no mask of its actions" in warned(quirks.Unmasked)
    assert "which is no mask" not in warned(quirks.MaskedInRows)
    assert warned(quirks.Plain) == ""
    proposed = checkup.examine(id_of(quirks.Rich), {}, 60.0).proposed
    assert [(each.flag, each.value) for each in proposed] == [("--wrap", "reward_scale:factor=1e-07")]
    assert "beyond the bounds" not in warned(quirks.Bytes)


def test_what_was_given_of_every_entry_and_what_it_becomes_is_said(capsys: pytest.CaptureFixture[str]):
    found = checkup.examine(id_of(quirks.Uneven), {}, 60.0)
    entries = {entry["name"]: entry for entry in found.to_json()["entries"]}
    assert entries.keys() == {"arm", "clock", "gear"}
    assert (entries["gear"]["low"], entries["gear"]["high"]) == (1, 1)
    assert entries["gear"]["becomes"].startswith("one-hot, 3 numbers")
    assert 9e5 <= entries["clock"]["low"] < entries["clock"]["high"] <= 9e5 + 10
    doctor._print(found)
    printed = " ".join(capsys.readouterr().out.split())
    assert "clock: (1,) float32 0 to 1e+06, observed 900,000 to 900,0" in printed


def test_the_next_command_has_every_option():
    words = [
        "X-v0",
        "--env-kwargs",
        'name="a b"',
        "size=3",
        "--wrap",
        "reward_scale:factor=0.1",
        "--bins",
        "5",
    ]
    asked = read(doctor.Doctor, words, "doctor")
    again = shlex.split(doctor._train("X-v0", asked))
    assert again[:3] == ["qhat", "train", "X-v0"]
    assert read(doctor.Doctor, again[2:], "doctor") == asked
    assert doctor._train("X-v0", doctor.Doctor("X-v0")) == "qhat train X-v0"


def test_a_buffer_that_is_written_over_is_stored_as_it_was():
    made = make_any("gym:quirks:Rewritten-v0", 1)
    assert isinstance(made, GymnasiumEnvironment)
    made.start()
    for _ in range(9):
        made.send(np.zeros((1, 1, 1), int))
        made.receive()
    made.send(np.zeros((1, 1, 1), int))
    step = made.receive()
    assert step.terminated.all()
    assert (step.successor[0, 0, 0], step.observation[0, 0, 0]) == (10, 0)


class Batch(VectorEnv):
    """Whole batches alone, as simulators on a GPU are; an episode has ten steps."""

    def __init__(self, num_envs: int = 1, mode: Any = AutoresetMode.NEXT_STEP, **_: Any):
        self.metadata, self.num_envs = {"autoreset_mode": mode}, num_envs
        self.single_observation_space, self.single_action_space = quirks.PAIR, gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.vector.utils.batch_space(quirks.PAIR, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.time = np.zeros(num_envs, int)

    def _observe(self) -> Any:
        return np.stack([self.time / 10, self.np_random.uniform(-1, 1, self.num_envs)], 1).astype(
            np.float32
        )

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time[:] = 0
        return self._observe(), {}

    def step(self, actions: Any) -> Any:
        late = self.time >= 10
        self.time = np.where(late, 0, self.time + 1)
        no = np.zeros(self.num_envs, bool)
        return self._observe(), np.where(late, 0.0, actions), self.time >= 10, no, {}


def test_what_is_registered_as_a_batch_alone_is_stepped_as_one():
    gymnasium.register("Batch-v0", vector_entry_point=Batch, max_episode_steps=50)
    gymnasium.register("Liar-v0", vector_entry_point=lambda **o: Batch(**o, mode=AutoresetMode.SAME_STEP))
    made = make_any("gym:Batch-v0", 2, (0, 1))
    assert isinstance(made, GymnasiumEnvironment)
    assert (made.num_envs, made.start().shape) == (2, (2, 2, 2))
    assert (made.spec.reference, find("gym:Batch-v0").limit) == (None, 50)
    findings = checkup.examine("gym:Batch-v0", {}, 60.0).findings
    assert (findings.found, set(findings.lengths)) == (AutoresetMode.NEXT_STEP, {10})
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"env_id": "gym:Liar-v0"}, "says SameStep and resets in the step after"),
        ({"env_id": "gym:Batch-v0", "vector": "async"}, "vector is async"),
    )
    for options, words in refused:
        with pytest.raises(UsageError, match=words):
            make_any(num_envs=2, **options)


OLD = """
try:
    import gym
except ImportError:
    gym = None
"""


def test_a_module_that_does_not_register_an_id_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "of_old_gym.py").write_text(OLD)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "__init__.py").write_text("")
    (strange / "old.py").write_text("print 'Python 2'")
    (strange / "latin.py").write_bytes(b"# caf\xe9")
    package = tmp_path / "package_of_old_gym"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_registration.py").write_text(OLD)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("strange", "__main__", "../x", ".x", "nowhere"):
        with pytest.raises(UsageError, match="Foo-v0"):
            find(f"gym:{module}:Foo-v0")
    for module in ("of_old_gym", "package_of_old_gym"):
        with pytest.raises(UsageError, match=r"imports gym, the old package.*shimmy"):
            find(f"gym:{module}:Old-v0")
    with pytest.raises(UsageError, match=r"'quirks' was imported and registers no 'Plane-v0'.*'Plain-v0'"):
        find("gym:quirks:Plane-v0")


def test_what_is_no_environment_is_one_sentence():
    for env, words in (
        (quirks.Stranger, r"class Stranger\(gymnasium.Env\)"),
        (quirks.Shapeless, "action_space"),
    ):
        with pytest.raises(UsageError, match=words):
            source_of(cast(Any, env)).make(MakeArgs())


def test_a_mask_of_all_factors_in_one_array():
    mask = read_mask([1, 0, 1, 0, 1], Actions((3, 2)), "mask")
    assert mask is not None
    assert mask.tolist() == [[True, False, True], [False, True, False]]
