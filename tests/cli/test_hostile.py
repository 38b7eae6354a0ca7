"""Files made to break a reader are refused with a sentence; loading runs no code.

Protects users who open a run, an agent or demonstrations from somebody else: other libraries unpickle them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qhat
from full import FULL
from hostile import HUGE, TENSORS, everything_in, rehashed, untouched
from hostile_fields import AGENT, CONFIG, JSON, KINDS, MANIFEST, RESUMED, with_field
from qhat.agent.agent import Agent
from qhat.cli import train as train_command
from qhat.cli.main import main
from qhat.cli.stopping import StopOnSignal
from qhat.recipes.config import TrainConfig
from qhat.runs.run import Run
from qhat.system.errors import UsageError
from tiny import TINY

SMALL = dataclasses.replace(TINY, hidden=(8,), replay_capacity=200, n_step=1, learning_starts=20)


SIZES = ("hidden", "num_envs", "shape", "choices", "head", "wrap")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds, an agent, and a folder outside them that no reader may touch."""
    place = tmp_path_factory.mktemp("made")
    config = TrainConfig(
        "CartPole-v1", recipe=SMALL, steps=40, seeds=2, eval_every=40, eval_episodes=2, save_every=40,
        run_dir=place / "run",
    )  # fmt: skip
    qhat.train("CartPole-v1", config)
    agent = Agent(4, 2, dataclasses.replace(SMALL, num_envs=1, replay_ratio=1.0), seed=1)
    for step in range(30):
        agent.remember(np.full(4, step), step % 2, 1.0, np.full(4, step + 1), False)
    agent.replay()
    agent.save(place / "agent")
    (place / "outside").mkdir()
    shutil.copytree(place / "run" / "best", place / "outside" / "best")
    (place / "outside" / "secret").write_text("secret\n")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of everything, to be damaged."""
    return shutil.copytree(made, tmp_path / "copy")


def resumed(run: Path) -> None:
    config = json.loads((run / "config.json").read_bytes())
    config = TrainConfig(
        "CartPole-v1", recipe=SMALL, steps=80, seeds=2, eval_every=40, eval_episodes=2, run_dir=run,
        recipe_name=config["recipe_name"], resume=True,
    )  # fmt: skip
    qhat.train("CartPole-v1", config)


def begun_from(run: Path) -> None:
    config = TrainConfig(
        "CartPole-v1", recipe=SMALL, steps=40, init_from=run, run_dir=run.parent / "new", eval_episodes=2
    )
    qhat.train("CartPole-v1", config)


USES: dict[str, Callable[[Path], Any]] = {
    "best": lambda run: Run.open(run).weights("best"),
    "last": lambda run: Run.open(run).weights("last"),
    "policy": lambda run: Run.open(run).policy("40", seed_index=1),
    "resume": resumed,
    "init": begun_from,
}


class Quiet(StopOnSignal):
    """Does not change this process's signal handlers."""

    def __init__(self):
        self.signal = None


def cli(*words: str) -> Callable[[Path], None]:
    """Run a command in this process, check its exit code, and raise its sentence as an error."""

    def use(run: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            lines: list[str] = []
            patch.setattr(train_command, "StopOnSignal", Quiet)
            patch.setattr("builtins.print", lambda *line, **_: lines.append(" ".join(map(str, line))))
            with pytest.raises(SystemExit) as left:
                main([*words, str(run)])
        assert left.value.code == 2
        raise UsageError("\n".join(lines))

    return use


def refused(use: Callable[[Path], Any], path: Path, place: Path) -> str:
    """Return the sentence; it names something in `path`, and nothing has changed."""
    with untouched(place, place / "outside"), pytest.raises(UsageError) as error:
        use(path)
    sentence = str(error.value)
    assert str(path) in sentence
    assert len(sentence) < 1_000
    assert not sentence.isupper()
    return sentence


def harm_tensors(folder: Path, harm: Callable[[bytes], bytes]) -> None:
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(harm(path.read_bytes()))
    for manifest in folder.rglob("manifest.json"):
        rehashed(manifest.parent)


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails if much memory is allocated, even if it is never touched."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    traced = "manifest_of" in request.node.name or any(part in request.node.name for part in SIZES)
    if traced:
        tracemalloc.start()
    yield
    if traced:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 2**10


def test_intact_files_are_read(place: Path):
    """Otherwise the tests below would pass for another reason."""
    for manifest in (place / "run").rglob("manifest.json"):
        rehashed(manifest.parent)
    assert {type(USES[name](place / "run")) for name in ("best", "last")} == {dict}
    USES["policy"](place / "run")(np.zeros(4))
    assert Agent.load(place / "agent").steps == 30
    begun_from(place / "run")
    resumed(place / "run")


@pytest.mark.parametrize("harm", TENSORS)
def test_damaged_tensors_are_refused(place: Path, harm: str):
    run = place / "run"
    harm_tensors(place / "agent", TENSORS[harm])
    harm_tensors(run, TENSORS[harm])
    every = FULL or harm in ("cut in the last tensor", "a shape of 10^9", "weights that are no numbers")
    uses = USES if every else {name: USES[name] for name in ("best", "last")}
    for use in (*uses.values(), Agent.load):
        path = place / "agent" if use is Agent.load else run
        sentence = refused(use, path, place)
        assert ".safetensors'" in sentence
        assert "not finite" in sentence or not harm.startswith("weights")


def test_a_file_with_another_hash_than_the_manifest_is_refused(place: Path):
    for path in place.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for name in ("best", "resume"):
        assert "SHA-256 is not the manifest's" in refused(USES[name], place / "run", place)


@pytest.mark.parametrize("harm", JSON)
def test_damaged_manifests_are_refused(place: Path, harm: str):
    for path in place.rglob("manifest.json"):
        _write(path, JSON[harm](path.read_text()))
    every = [USES["resume"]] if FULL or harm == "no JSON" else []
    for use in (USES["best"], Agent.load, lambda run: Run.open(run).summary(), *every):
        path = place / "agent" if use is Agent.load else place / "run"
        assert "manifest" in refused(use, path, place)


@pytest.mark.parametrize("harm", JSON)
def test_damaged_configurations_are_refused(place: Path, harm: str):
    _write(place / "run" / "config.json", JSON[harm]((place / "run" / "config.json").read_text()))
    for use in (USES["best"], USES["init"], cli("train", "CartPole-v1", "--resume", "--run-dir")):
        assert "config.json" in refused(use, place / "run", place)


def _write(path: Path, text: str | bytes) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("field", MANIFEST)
def test_bad_fields_of_a_runs_manifest_are_refused(place: Path, field: str):
    run = place / "run"
    texts = {path: path.read_text() for path in run.rglob("manifest.json")}
    for value in MANIFEST[field]:
        for path, text in texts.items():
            path.write_text(with_field(field, value)(text))
        sentence = refused(lambda run: (Run.open(run).summary(), USES["best"](run)), run, place)
        assert any(word in sentence for word in ("manifest", "checkpoint", "SHA-256", "shape"))


@pytest.mark.parametrize("field", AGENT)
def test_bad_fields_of_an_agents_manifest_are_refused(place: Path, field: str, small: None):
    path = place / "agent" / "manifest.json"
    text = path.read_text()
    for value in AGENT[field]:
        path.write_text(with_field(field, value)(text))
        refused(Agent.load, place / "agent", place)


@pytest.mark.parametrize("field", CONFIG)
def test_bad_fields_of_a_runs_configuration_are_refused(place: Path, field: str, small: None):
    path = place / "run" / "config.json"
    text = path.read_text()
    for value in CONFIG[field]:
        if field in ("recipe/num_envs", "recipe/replay_capacity") and value in (300, HUGE):
            continue  # Where no replay is made that is no matter, and it is resumed below.
        path.write_text(with_field(field, value)(text))
        refused(USES["best"], place / "run", place)


EACH = """
import json, pathlib, sys
from qhat.cli.main import main
from qhat.cli.stopping import StopOnSignal
path = pathlib.Path(sys.argv[1], "config.json")
text = path.read_text()
for changed in json.load(sys.stdin):
    path.write_text(changed)
    try:
        main(["train", "--resume", "--run-dir", sys.argv[1]])
    except SystemExit as left:
        print(left.code)
    assert path.read_text() == changed
assert "jax" not in sys.modules
"""


def test_bad_settings_are_refused_on_resume(place: Path):
    """In a separate process, without beartype and before JAX is imported."""
    run = place / "run"
    text = (run / "config.json").read_text()
    texts = [with_field(name, value)(text) for name, values in RESUMED.items() for value in values]
    command = [sys.executable, "-c", EACH, str(run)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"] * len(texts), done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("qhat: ")]
    assert len(sentences) == len(texts)
    assert not [sentence for sentence in sentences if "config.json" not in sentence]
    assert "Traceback" not in done.stderr


def test_a_replay_larger_than_memory_is_refused(place: Path, small: None):
    path = place / "run" / "config.json"
    path.write_text(with_field("recipe/replay_capacity", 2**31 - 1)(path.read_text()))
    with untouched(place, place / "outside"), pytest.raises(UsageError):
        cli("train", "--resume", "--run-dir")(place / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_links_pipes_and_devices_are_refused(place: Path, kind: str):
    """A run folder has only files and folders; no reader waits for a pipe or follows a link out of it."""
    run = place / "run"
    KINDS[kind](run)
    for use in (USES["best"], cli("train", "--resume", "--run-dir")):
        sentence = refused(use, run, place)
        assert kind.partition(":")[0] in sentence
        assert kind.rpartition(": ")[2].split("/")[-1] in sentence


@pytest.mark.parametrize("name", ["learner.safetensors", "manifest.json", "replay.safetensors"])
@pytest.mark.parametrize("by", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), None])
def test_an_agents_files_must_be_regular(place: Path, name: str, by: Callable[[Path], Any] | None):
    path = place / "agent" / name
    path.unlink()
    if by is not None:
        by(path)
    refused(Agent.load, place / "agent", place)


def test_an_agent_or_a_run_can_be_named_by_a_link(place: Path):
    """A link that the user types is trusted."""
    (place / "to_run").symlink_to("run")
    (place / "to_agent").symlink_to("agent")
    assert Run.open(place / "to_run").weights()
    assert Agent.load(place / "to_agent").steps == 30


@pytest.mark.parametrize(
    "name",
    ["../../outside/best", "/etc", "40/../../../outside/best", "", "²", "-4", "4" * 99, "x" * 101, "\0"],
)
def test_last_must_name_a_step(place: Path, name: str):
    (place / "run" / "last").write_text(name)
    for use in (USES["last"], cli("train", "--resume", "--run-dir"), lambda run: Run.open(run).summary()):
        refused(use, place / "run", place)


@pytest.mark.parametrize("name", ["metrics.csv", "eval.csv"])
@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"step\n" + b"9" * 200_000 + b"\n"])
def test_damaged_tables_are_refused(place: Path, name: str, data: bytes):
    (place / "run" / name).write_bytes(data)
    refused(USES["resume"], place / "run", place)
    assert name in refused(cli("plot"), place / "run", place)


def test_a_state_of_another_step_is_refused(place: Path):
    for manifest in (place / "run" / "checkpoints").rglob("manifest.json"):
        manifest.write_text(with_field("step", 38)(manifest.read_text()))
    assert "its manifest has step 38 and its state step 40" in refused(USES["resume"], place / "run", place)


def test_a_manifest_of_100_mb_is_refused_by_its_size(place: Path, small: None):
    for folder in ("agent", "run/best"):
        os.truncate(place / folder / "manifest.json", 100_000_000)
    assert "100,000,000 bytes" in refused(Agent.load, place / "agent", place)
    assert "100,000,000 bytes" in refused(USES["best"], place / "run", place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything: nothing is refused to it")
@pytest.mark.parametrize("name", ["config.json", "best", "best/manifest.json", "best/weights.safetensors"])
def test_unreadable_files_are_refused(place: Path, name: str):
    (place / "run" / name).chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        USES["best"](place / "run")
    (place / "run" / name).chmod(0o700)


@pytest.mark.parametrize(
    "words", [("evaluate", "--episodes", "1"), ("play",), ("train", "--resume", "--run-dir")]
)
def test_every_command_refuses_a_damaged_run(place: Path, words: tuple[str, ...]):
    harm_tensors(place / "run", TENSORS["overlapping offsets"])
    assert "safetensors' is damaged: tensor" in refused(cli(*words), place / "run", place)


@pytest.mark.parametrize(
    "words", [("evaluate", "--episodes", "1"), ("train", "CartPole-v1", "--hidden", "8", "--init-from")]
)
def test_a_process_ends_with_exit_2_and_without_a_traceback(place: Path, words: tuple[str, ...]):
    """Control characters from a file do not reach the terminal."""
    harm_tensors(place / "run", TENSORS["a tensor too many"])
    before = everything_in(place)
    command = [sys.executable, "-m", "qhat", *words, str(place / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=place)
    assert done.returncode == 2, done.stderr
    assert "unexpected tensor '../../" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b[2J" not in done.stderr
    assert everything_in(place) == before
