"""The figure of one run, from synthetic run folders."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from qhat.reports.plot import Episodes, Evaluations, plot_progress, read_run
from qhat.runs.curves import Clock, read_clock
from qhat.runs.tables import speed
from qhat.system.errors import UsageError

METRICS = [
    "kind",
    "seed_index",
    "step",
    "score",
    "length",
    "epsilon",
    "loss",
    "q",
    "gradient_norm",
    "steps_per_second",
]
EVALS = ["step", "seed_index", "mean_return", "std_return", "episodes"]


def make_run(folder: Path, seeds: int, steps: int = 50_000, evaluations: int = 20) -> Path:
    """Write a run folder in which every seed learns CartPole, each at its own pace."""
    generator = np.random.default_rng(seeds)
    pace = generator.uniform(0.25, 0.45, size=seeds) * steps

    def skill(seed: int, step: float) -> float:
        return 20 + 480 / (1 + np.exp(-(step - pace[seed]) / (0.06 * steps)))

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, METRICS)
        writer.writeheader()
        for seed in range(seeds):
            step = 0
            while True:
                length = int(np.clip(generator.gamma(6, skill(seed, step) / 5), 8, 500))
                step += length
                if step > steps:
                    break
                row = {"kind": "episode", "seed_index": seed, "step": step}
                writer.writerow(row | {"score": float(length), "length": length})
            writer.writerow({"kind": "progress", "seed_index": seed, "step": steps, "loss": 0.1})
    with (folder / "eval.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(EVALS)
        for step in np.linspace(0, steps, evaluations + 1)[1:].astype(int):
            for seed in range(seeds):
                score = min(500.0, skill(seed, step) * generator.uniform(0.85, 1.15))
                writer.writerow([step, seed, score, 12.5, 10])
    return folder


def append(file: Path, text: str) -> None:
    with file.open("a", newline="") as stream:
        stream.write(text)


@pytest.mark.parametrize(("seeds", "steps"), [(1, 50_000), (5, 50_000), (2, 900)])
def test_figure_has_its_size_and_something_on_it(tmp_path: Path, seeds: int, steps: int) -> None:
    episodes, evaluations = read_run(make_run(tmp_path / "run", seeds, steps))
    assert len(episodes) == seeds
    assert evaluations.score.shape == (seeds, 20)
    if steps == 900:
        assert all(len(seed.score) < 100 for seed in episodes)
    out = plot_progress(episodes, evaluations, "CartPole-v1 · dqn", tmp_path / "new" / "plot.png")
    image = imread(out)
    assert image.shape[:2] == (675, 1650)
    left, right = np.split(image[..., :3], [1100], axis=1)
    for half in (left, right):
        assert 0.02 < np.mean(half.min(axis=-1) < 0.9) < 0.6, "neither blank nor painted over"


def test_one_episode_and_no_evaluation_still_make_a_figure(tmp_path: Path) -> None:
    one = Episodes(step=np.array([9.0]), score=np.array([9.0]), length=np.array([9.0]))
    none = Evaluations(step=np.zeros(0), score=np.zeros((0, 0)))
    for seeds in ([one], [one, one]):
        assert plot_progress(seeds, none, "one", tmp_path / "one.png").stat().st_size > 5_000


@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89P")])
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str, magic: bytes) -> None:
    out = plot_progress(*read_run(make_run(tmp_path, 2, 5_000)), "t", tmp_path / f"plot.{suffix}")
    assert out.read_bytes().startswith(magic)


def test_a_clock_draws_against_seconds(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, 2, 5_000))
    clock = Clock(step=np.array([1_000.0, 5_000.0]), seconds=np.array([50.0, 60.0]))
    assert clock.at(np.array([0, 500, 3_000, 9_000])).tolist() == [0.0, 25.0, 55.0, 60.0]
    out = plot_progress(*run, "t", tmp_path / "seconds.svg", clock=clock).read_bytes()
    assert b"Seconds of compiling and training" in out
    assert b"Environment steps" not in out
    assert b"Environment steps" in plot_progress(*run, "t", tmp_path / "steps.svg").read_bytes()
    with pytest.raises(UsageError, match="expected finite numbers for seed_index, step, steps_per_second"):
        read_clock(tmp_path)
    (tmp_path / "metrics.csv").write_text("kind,seed_index,step,steps_per_second\n")
    with pytest.raises(UsageError, match="no row of progress yet"):
        read_clock(tmp_path)


def test_a_slow_speed_is_written_with_its_digits() -> None:
    assert [speed(rate) for rate in (0.04567, 3.14159, 999.96, 12_345.6)] == [
        "0.04567",
        "3.142",
        "1000",
        "12346",
    ]


def test_an_unknown_suffix_names_the_formats(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, 1, 900))
    for name in ("plot.bmp", "plot"):
        with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
            plot_progress(*run, "t", tmp_path / name)
    with pytest.raises(UsageError, match="window is 0"):
        plot_progress(*run, "t", tmp_path / "plot.png", window=0)
    with pytest.raises(UsageError, match="nothing to plot"):
        plot_progress([], Evaluations(np.zeros(0), np.zeros((0, 0))), "t", tmp_path / "plot.png")


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "new_column,kind,seed_index,step,score,length,epsilon\n"
        "x,episode,1,30,-1.5,30,\nx,progress,,32,,,0.5\nx,episode,0,12,2,12,\nx,episode,1,40,3,10,\n"
    )
    (tmp_path / "eval.csv").write_text(
        "step,seed_index,mean_return,std_return,episodes\n20,1,5,0,3\n20,0,4,0,3\n40,0,6,0,3\n"
    )
    (first, second), evaluations = read_run(tmp_path)
    assert (first.step.tolist(), first.score.tolist(), first.length.tolist()) == ([12], [2], [12])
    assert second.step.tolist() == [30, 40]
    assert second.score.tolist() == [-1.5, 3]
    # Seed 1 has not been evaluated at step 40 yet.
    assert evaluations.step.tolist() == [20]
    assert evaluations.score.tolist() == [[4], [5]]


@pytest.mark.parametrize("half", ["epis", "episode,0,99", "episode,0,50001,4"])
def test_a_half_written_last_line_is_ignored(tmp_path: Path, half: str) -> None:
    before, evaluated = read_run(make_run(tmp_path, 1))
    append(tmp_path / "metrics.csv", half)
    append(tmp_path / "eval.csv", "60000,0,49")
    after, evaluated_after = read_run(tmp_path)
    np.testing.assert_array_equal(after[0].score, before[0].score)
    np.testing.assert_array_equal(evaluated_after.step, evaluated.step)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    lines = (make_run(tmp_path, 1, 900) / "metrics.csv").read_text().splitlines()
    for bad in ("episode,0,twelve,1,1", "episode,0,5,nan,5", "episode,0"):
        (tmp_path / "metrics.csv").write_text("\n".join([lines[0], bad, *lines[1:], ""]))
        with pytest.raises(UsageError, match=r"metrics\.csv' line 2 is 'episode.*expected finite"):
            read_run(tmp_path)
    (tmp_path / "metrics.csv").write_text("kind,seed_index,step\n")
    with pytest.raises(UsageError, match="no column 'score, length'"):
        read_run(tmp_path)


def test_a_folder_that_is_no_run_or_has_no_episode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no metrics\.csv, expected a run folder") as refusal:
        read_run(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    (tmp_path / "metrics.csv").write_text(",".join(METRICS) + "\n")
    with pytest.raises(UsageError, match=r"has no eval\.csv"):
        read_run(tmp_path)
    (tmp_path / "eval.csv").write_text(",".join(EVALS) + "\n")
    with pytest.raises(UsageError, match="no finished episode") as refusal:
        read_run(tmp_path)
    assert str(tmp_path) in str(refusal.value)


def test_importing_is_cheap_and_plotting_never_loads_pyplot(tmp_path: Path) -> None:
    make_run(tmp_path, 2, 900)
    program = (
        "import sys; from qhat.reports.plot import plot_progress, read_run\n"
        "assert not {'matplotlib', 'jax'} & set(sys.modules)\n"
        f"plot_progress(*read_run({str(tmp_path)!r}), 't', {str(tmp_path / 'p.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
