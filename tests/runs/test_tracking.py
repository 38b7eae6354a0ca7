"""Trackers get the numbers of the tables, and TensorBoard's files can be read back.

Protects against a number that is logged at another step or under another seed, a resumed run that
overwrites or repeats what was logged, and a service whose failure ends a training.
"""

import csv
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import qhat
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs import tracking
from qhat.runs.progress import Progress
from qhat.runs.train import Interrupted, train
from qhat.system.errors import UsageError

CONFIG = TrainConfig(
    "CartPole-v1", recipe=Recipe(hidden=(8,), learning_starts=50), steps=400, seeds=2, eval_every=200,
    save_every=200, eval_episodes=2, tensorboard=True,
)  # fmt: skip


class Recording:
    """A tracker that a user wrote."""

    def __init__(self):
        self.began: list[tuple[str, int]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.ended = 0

    def start(self, config: Mapping[str, Any], folder: Path, step: int) -> None:
        self.began.append((config["env"], step))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.logged.append((step, dict(values)))

    def finish(self) -> None:
        self.ended += 1


class Failing(Recording):
    """A tracker whose service is down."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        super().log(step, values)
        raise ConnectionError("no network")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recording, Failing]:
    """A resumed run, and its trackers."""
    folder, recording, failing = tmp_path_factory.mktemp("tracking") / "run", Recording(), Failing()
    with pytest.warns(UserWarning, match="Failing failed and gets no more numbers") as warned:
        train("CartPole-v1", CONFIG, trackers=[recording, failing], run_dir=folder)
    assert len([each for each in warned if "Failing" in str(each.message)]) == 1
    train("CartPole-v1", CONFIG, trackers=[recording], run_dir=folder, resume=True, steps=600)
    return folder, recording, failing


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> dict[tuple[str, int], float]:
    """Scalars of event files, oldest file first: a later one of a tag and step replaces an earlier."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    found: dict[tuple[str, int], float] = {}
    for path in sorted(folder.glob("events.*"), key=lambda each: each.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found[value.tag, event.step] = value.simple_value
    return found


def expected(folder: Path) -> dict[tuple[str, int], float]:
    """Return the numbers of the tables, as the mean over the seeds at each step."""
    sums: dict[tuple[str, int], list[float]] = {}
    for table, names in (("metrics.csv", {"episode": "episode", "progress": "train"}), ("eval.csv", {})):
        for row in rows(folder / table):
            kind = names.get(row.pop("kind", ""), "evaluation")
            seed, step = row.pop("seed_index"), int(row.pop("step"))
            for field, text in row.items():
                if text and " " not in text and math.isfinite(float(text)):
                    for tag in (f"{kind}/{field}", f"{kind}/{field}/seed-{seed}"):
                        sums.setdefault((tag, step), []).append(float(text))
    return {key: sum(values) / len(values) for key, values in sums.items()}


def test_a_tracker_gets_the_numbers_of_the_tables(tracked: tuple[Path, Recording, Failing]):
    folder, recording, _ = tracked
    logged: dict[tuple[str, int], float] = {}
    for step, values in recording.logged:
        logged.update({(tag, step): value for tag, value in values.items()})
    assert logged == pytest.approx(expected(folder), rel=1e-4)
    assert {"train/loss", "train/q/seed-1", "evaluation/mean_return", "episode/score/seed-0"} <= {
        tag for tag, _ in logged
    }


def test_a_resumed_run_goes_on_with_what_was_logged(tracked: tuple[Path, Recording, Failing]):
    folder, recording, _ = tracked
    assert recording.began == [("CartPole-v1", 0), ("CartPole-v1", 400)]
    assert recording.ended == 2
    assert len(list((folder / "tensorboard").glob("events.*"))) == 2
    found, wanted = events(folder / "tensorboard"), expected(folder)
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=1e-4)
    steps = [step for step, values in recording.logged if "train/loss/seed-0" in values or "train/q" in values]
    assert steps == sorted(set(steps)), "no step twice"


def test_a_tracker_that_fails_ends_nothing(tracked: tuple[Path, Recording, Failing]):
    folder, _, failing = tracked
    assert len(failing.logged) == 1
    assert qhat.Run.open(folder).summary()["step"] == 600


def test_files_are_closed_when_a_run_is_stopped(tmp_path: Path):
    recording, steps = Recording(), []

    def look(now: Progress) -> None:
        steps.append(now.step)

    with pytest.raises(Interrupted):
        train("CartPole-v1", CONFIG, progress=look, should_stop=lambda: bool(steps), trackers=[recording],
              run_dir=tmp_path / "run")  # fmt: skip
    assert recording.ended == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("wandbb", "Did you mean 'wandb'"), ("", "expected one of"), ("neptune", "expected one of")],
)
def test_an_unknown_service_is_a_sentence(name: str, sentence: str):
    with pytest.raises(UsageError, match=sentence):
        tracking.require_known([name])


def test_a_service_that_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(
        tracking, "NAMES", {**tracking.NAMES, "wandb": ("no_such_module", "pip install wandb")}
    )
    with pytest.raises(UsageError, match=r"track='wandb' needs no_such_module.*pip install wandb"):
        train("CartPole-v1", CONFIG, track="wandb", run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_id_never_changes(tmp_path: Path):
    made = [
        tracking._id(tmp_path, "wandb", lambda: "first"),
        tracking._id(tmp_path, "wandb", lambda: "second"),
    ]
    assert made == ["first", "first"]
    assert tracking._id(tmp_path, "mlflow", lambda: "third") == "third"
    (tmp_path / tracking.IDS).write_text("[]")
    with pytest.raises(UsageError, match="damaged"):
        tracking._id(tmp_path, "wandb", lambda: "x")
