"""Runs side by side: what is compared with what, the numbers, the sentences, the figure."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from scipy import stats

import qhat
from qhat import recipes
from qhat.cli.main import main
from qhat.recipes.config import TrainConfig
from qhat.recipes.presets import NAME, PRESETS, TUNING_SEEDS
from qhat.reports.compare import COLOURS, MOST, _style, comparison_figure, draw_comparison
from qhat.reports.comparison.comparing import compare, joined
from qhat.reports.comparison.result import Comparison, Curves
from qhat.runs.curves import read_clock
from qhat.runs.folder import RunFolder
from qhat.system.errors import UsageError

LEARNS = ([20.0, 200.0, 450.0, 400.0], [30.0, 100.0, 300.0, 480.0], [25.0, 90.0, 350.0, 460.0])
"""Evaluations of three seeds at steps 1,000 to 4,000."""
LAGS = ([20.0, 50.0, 100.0, 200.0], [22.0, 60.0, 90.0, 210.0], [21.0, 40.0, 500.0, 190.0])


def write(
    folder: Path,
    scores: Sequence[Sequence[float]],
    name: str = "dqn",
    env: str = "CartPole-v1",
    spec: Mapping[str, Any] | None = None,
    rate: float = 300.0,
    every: int = 1_000,
    **settings: Any,
) -> Path:
    """Write a run folder as training does, of given evaluations `[seeds][times]`."""
    recipe = PRESETS[env].recipe if name == NAME else recipes.get(name)
    settings = {"steps": every * len(scores[0]), "recipe": recipe, **settings}
    config = TrainConfig(env, name, seeds=len(scores), **settings).to_json()
    run = RunFolder.create(folder, env, name)
    run.describe({**config, "spec": spec or {"id": env, "reference": env}})
    run.start_tables()
    for time in range(len(scores[0])):
        rows = [{"seed_index": seed, "step": every * (time + 1)} for seed in range(len(scores))]
        scored = [{**row, "mean_return": seed[time]} for row, seed in zip(rows, scores, strict=True)]
        run.append(run.evaluations, scored)
        progress = {"kind": "progress", "steps_per_second": rate}
        run.append(run.metrics, [{**row, **progress} for row in rows])
    return folder


def compared(runs: Sequence[Path | qhat.Run], **options: Any) -> Comparison:
    """By the runs' own evaluations, with few resamples: intervals are looked at elsewhere."""
    return compare(runs, **{"episodes": 0, "repetitions": 50, **options})


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "a", LAGS), write(tmp_path / "b", LEARNS, "qhat", seed=100)]


def typed(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, words)])
    return int(ended.value.code or 0)


def test_estimates_match_the_scores(pair: list[Path]):
    comparison = qhat.compare(pair, episodes=0, repetitions=200).to_json()
    assert json.loads(json.dumps(comparison)) == comparison
    (part,) = comparison["environments"]
    assert (part["env"], part["steps"], part["gamma"]) == ("CartPole-v1", 4000, 475.0)
    assert comparison["aggregate"] is None
    best = {"dqn": [200.0, 210.0, 500.0], "qhat": [450.0, 480.0, 460.0]}
    for label, scores in best.items():
        group = part["groups"][label]
        assert group["scores"] == scores
        assert group["seeds"] == ([0, 1, 2] if label == "dqn" else [100, 101, 102])
        assert group["iqm"]["value"] == pytest.approx(stats.trim_mean(scores, 0.25))
        assert group["median"]["value"] == np.median(scores)
        assert group["mean"]["value"] == pytest.approx(np.mean(scores))
        gap = 475 - np.mean(np.minimum(scores, 475))
        assert group["optimality_gap"]["value"] == pytest.approx(gap)
        for name in ("iqm", "median", "mean", "optimality_gap"):
            low, high = group[name]["ci95"]
            assert low <= group[name]["value"] <= high
            assert low < high
    wins = part["probability_of_improvement"]
    assert wins["qhat"]["dqn"]["value"] == pytest.approx(6 / 9)
    assert wins["dqn"]["qhat"]["value"] == pytest.approx(3 / 9)
    low, high = wins["qhat"]["dqn"]["ci95"]
    assert wins["dqn"]["qhat"]["ci95"] == pytest.approx([1 - high, 1 - low])
    assert "selection scores" in part["scores"]
    assert not part["fresh"]
    last = compared(pair, checkpoint="last").environments[0].standings[0]
    assert last.scores[:, 0].tolist() == [200.0, 210.0, 190.0]


def test_seeds_of_one_recipe_are_one_group_and_other_settings_another(tmp_path: Path):
    other = dataclasses.replace(recipes.get("dqn"), gamma=0.9)
    folders = [
        write(tmp_path / "x" / "one", LAGS),
        write(tmp_path / "x" / "two", LEARNS, seed=3),
        write(tmp_path / "y" / "one", LEARNS, recipe=other),
    ]
    part = compared(folders[:2]).environments[0]
    assert [standing.label for standing in part.standings] == ["dqn"]
    assert part.standings[0].seeds == (0, 1, 2, 3, 4, 5)
    assert part.improvement == {}
    part = compared(folders).environments[0]
    assert [standing.label for standing in part.standings] == ["dqn", "dqn + gamma 0.9"]


def test_a_repeated_run_or_seed_counts_one_time(pair: list[Path], tmp_path: Path):
    again = write(tmp_path / "again", LEARNS, seed=1)
    comparison = compared([pair[0], pair[0].parent / "." / pair[0].name, again])
    (standing,) = comparison.environments[0].standings
    assert standing.seeds == (0, 1, 2, 3)
    assert standing.scores[:, 0].tolist() == [200.0, 210.0, 500.0, 460.0]
    text = " ".join(comparison.notes)
    assert f"'{pair[0]}' was named more than once; it counts once." in text
    assert f"'{again}' repeats seeds 1–2 of another run with the same settings" in text


def test_the_common_part_is_compared(pair: list[Path], tmp_path: Path):
    longer = write(tmp_path / "longer", [[*seed, 500.0, 500.0] for seed in LEARNS], "rainbow")
    comparison = compared([*pair, longer])
    (part,) = comparison.environments
    assert part.steps == 4000
    assert [standing.curve.x[-1] for standing in part.standings] == [4000] * 3
    assert part.standings[2].scores[:, 0].tolist() == [450.0, 480.0, 460.0]
    (note,) = [note for note in comparison.notes if "different steps" in note]
    assert "4,000 to 6,000" in note
    assert str(longer) in note
    assert str(pair[0]) not in note


def test_complete_evaluations_of_a_broken_run_count(pair: list[Path], tmp_path: Path):
    with (pair[0] / "eval.csv").open("a") as file:
        file.write("5000,0,500.0,,\n5000,1,500.0,,\n5000,2,50")  # the kill came here
    empty = write(tmp_path / "empty", LAGS, "rainbow")
    (empty / "eval.csv").write_text("")
    begun = write(tmp_path / "begun", LAGS, "c51")
    header, first, *_ = (begun / "eval.csv").read_text().splitlines()
    (begun / "eval.csv").write_text(f"{header}\n{first}\n")
    stopped = write(tmp_path / "stopped", [seed[:3] for seed in LEARNS], "per_dqn", steps=4_000)
    comparison = compared([*pair, empty, begun, stopped])
    assert [standing.label for standing in comparison.environments[0].standings] == [
        "dqn",
        "qhat",
        "per_dqn",
    ]
    assert comparison.environments[0].standings[0].scores[:, 0].tolist() == [100.0, 90.0, 500.0]
    text = " ".join(comparison.notes)
    for folder in (empty, begun):
        assert f"'{folder}' has no complete evaluation yet and is left out." in text
    assert f"'{stopped}' was last evaluated at step 3,000 of 4,000; only that part counts." in text
    with pytest.raises(UsageError, match=r"nothing to compare: .*no complete evaluation"):
        compared([empty])


def test_one_seed_has_no_interval_anywhere(pair: list[Path], tmp_path: Path):
    single = write(tmp_path / "single", LEARNS[:1], "rainbow")
    comparison = compared([pair[0], single])
    part = comparison.to_json()["environments"][0]
    alone = part["groups"]["rainbow"]
    assert all(alone[name]["ci95"] is None for name in ("iqm", "median", "mean", "optimality_gap"))
    wins = part["probability_of_improvement"]["rainbow"]["dqn"]
    assert wins == {"value": pytest.approx(2 / 3), "ci95": None}
    standing = comparison.environments[0].standings[1]
    assert (
        standing.curve.low is standing.curve.high is standing.profile.low is standing.profile.high is None
    )
    assert any("Only one seed, so no interval: CartPole-v1: rainbow" in note for note in comparison.notes)
    assert not any("Only one seed" in note for note in compared(pair).notes)


def test_tuning_seeds_are_reported(tmp_path: Path):
    for name, env, seed, those in (
        (NAME, "Acrobot-v1", TUNING_SEEDS - 1, "2000–2001"),
        ("qhat", "CartPole-v1", 5_038, "5038–5039"),
    ):
        tuned = write(tmp_path / name, LAGS, name, env, seed=seed)
        notes = compared([tuned]).notes
        assert f"Seeds {seed}–{seed + 2}." in notes
        warning = f"Warning: '{tuned}' has seeds {those}, which were used to choose the settings of {name}"
        assert notes[-1].startswith(warning)
    fair = [
        write(tmp_path / "fair" / "preset", LAGS, NAME, "Acrobot-v1"),
        write(tmp_path / "fair" / "qhat", LAGS, "qhat", seed=200),
    ]
    note = compared(fair).notes[-1]
    assert note.startswith(
        "Seeds 0–2, 200–202. Tuning uses other seeds (from 2,000 on); none of these seeds is known"
    )


def test_environments_are_compared_separately_and_together(pair: list[Path], tmp_path: Path):
    down = [[-score for score in seed] for seed in LAGS]
    spec = {"id": "envpool:Acrobot-v1", "reference": "Acrobot-v1"}
    more = [
        write(tmp_path / "c", down, "dqn", "envpool:Acrobot-v1", spec),
        write(tmp_path / "d", [*down, down[0]], "qhat", "Acrobot-v1"),
        write(tmp_path / "e", down, "rainbow", "Acrobot-v1"),
        write(tmp_path / "f", down, "dqn", "Acrobot-v1", env_kwargs={"torque": 2}),
    ]
    comparison = compared([*pair, *more[:3]])
    assert [part.name for part in comparison.environments] == ["CartPole-v1", "Acrobot-v1"]
    together = comparison.aggregate
    assert together is not None
    assert [standing.label for standing in together.standings] == ["dqn", "qhat"]
    poles = (np.array([200.0, 210.0, 500.0]) - 22.7) / 452.3
    expected = [poles, (np.array([-20.0, -22.0, -21.0]) + 499.2) / 399.2]
    np.testing.assert_allclose(together.standings[0].scores, np.transpose(expected))
    assert together.standings[0].median.value == pytest.approx(np.median(np.mean(expected, axis=1)))
    assert together.gamma == 1.0
    assert together.standings[0].curve.x[-1] == 1.0
    text = " ".join(comparison.notes)
    assert "The runs are of 2 environments" in text
    assert "not in the aggregate: rainbow" in text
    assert "The aggregate of qhat uses the first 3 seeds" in text
    # Options make it another task, of which no ends are known: those of the scores.
    comparison = compared([pair[0], more[3]])
    assert [part.name for part in comparison.environments] == ["CartPole-v1", "Acrobot-v1, torque=2"]
    assert comparison.environments[1].gamma is None
    assert comparison.environments[1].standings[0].gap is None
    assert comparison.scales["Acrobot-v1, torque=2"][:2] == (-22.0, -20.0)
    assert "no reference scores are known" in comparison.scales["Acrobot-v1, torque=2"][2]
    assert comparison.aggregate is not None
    assert comparison.aggregate.gamma is None
    assert np.ravel(comparison.aggregate.standings[0].scores[:, 1]).tolist() == [1.0, 0.0, 0.5]


def test_fresh_episodes_are_the_default(trained_cartpole: qhat.Run, tmp_path: Path):
    run, trained = trained_cartpole, trained_cartpole.folder.path
    comparison = compared([run], episodes=3)
    (part,) = comparison.environments
    assert part.fresh
    assert part.source == "3 fresh episodes per seed, best weights"
    assert part.standings[0].scores[:, 0].tolist() == run.evaluate(3, "best", 1_000_000).per_seed
    assert compared([trained], episodes=3).environments[0].standings[0].iqm == part.standings[0].iqm
    # Beside a run that ended earlier its weights are of too late a step.
    early = write(tmp_path / "early", [[9.0], [9.5]], "qhat", every=200)
    mixed = compared([trained, early], episodes=3, checkpoint="last")
    assert not mixed.environments[0].fresh
    assert mixed.environments[0].source == "each seed's evaluation at the common step"
    assert any(f"'{trained}' has kept no checkpoint of step 200" in note for note in mixed.notes)


def test_runs_without_a_common_part_are_refused(pair: list[Path], tmp_path: Path):
    early = write(tmp_path / "early", LAGS, "rainbow", every=100)
    with pytest.raises(UsageError, match=r"ends at step 400 and '.*' was first evaluated at step 1,000"):
        compared([*pair, early])


def test_a_run_without_a_checkpoint_has_no_fresh_episodes(pair: list[Path]):
    comparison = compared(pair, episodes=1)
    assert not comparison.environments[0].fresh
    assert any(f"no fresh episodes, '{pair[0]}' has no checkpoint yet" in note for note in comparison.notes)


def test_the_clock_sums_the_recorded_speed(tmp_path: Path):
    run = write(tmp_path / "run", LAGS, rate=300.0)
    # Three seeds, 1,000 steps each, at 300 steps per second of all of them: 10 s a piece.
    clock = read_clock(run)
    assert clock.seconds.tolist() == [10.0, 20.0, 30.0, 40.0]
    assert clock.at(np.array([0, 500, 4_000])).tolist() == [0.0, 5.0, 40.0]
    comparison = compared([run, write(tmp_path / "fast", LEARNS, "qhat", rate=600.0)], axis="seconds")
    slow, fast = comparison.environments[0].standings
    assert slow.curve.x.tolist() == [10.0, 20.0, 30.0, 40.0]
    assert fast.curve.x.tolist() == [5.0, 10.0, 15.0, 20.0]
    assert slow.scores.tolist() == compared([run]).environments[0].standings[0].scores.tolist()
    still = write(tmp_path / "still", LAGS, rate=0)
    with pytest.raises(UsageError, match=r"steps_per_second of 0.*axis='steps'"):
        compared([still], axis="seconds")


def test_curves_are_joined_where_all_runs_have_values():
    scores = np.arange(8.0).reshape(2, 4, 1)
    fine = Curves(np.array([1.0, 2.0, 3.0, 4.0]), scores)
    coarse = Curves(np.array([2.0, 4.0, 6.0]), np.array([[[10.0], [20.0], [30.0]]]))
    both = joined([fine, coarse])
    assert both.x.tolist() == [2.0, 4.0]
    assert both.scores[..., 0].tolist() == [[1.0, 3.0], [5.0, 7.0], [10.0, 20.0]]
    one = joined([fine])
    np.testing.assert_array_equal(one.scores, scores)
    assert one.band(50).value.tolist() == [2.0, 3.0, 4.0, 5.0]


def test_the_figure_has_its_panels_in_every_format(pair: list[Path], tmp_path: Path):
    comparison = compared(pair)
    image = imread(draw_comparison(comparison, tmp_path / "new" / "c.png"))
    for panel in np.array_split(image[..., :3], 3, axis=1):
        assert 0.01 < np.mean(panel.min(axis=-1) < 0.9) < 0.6, "neither blank nor painted over"
    for suffix, magic in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        assert draw_comparison(comparison, tmp_path / f"c.{suffix}").read_bytes().startswith(magic)
    (tmp_path / "file").touch()
    with pytest.raises(qhat.QhatError, match=r"figure '.*file/c\.png' cannot be written: "):
        draw_comparison(comparison, tmp_path / "file" / "c.png")
    with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf"):
        draw_comparison(comparison, tmp_path / "c.jpg")
    assert len(comparison_figure(compared(pair[:1])).axes) == 2, "one group beats nobody"


def test_groups_differ_without_colour():
    looks = [(str(style["linestyle"]), style["marker"]) for style in map(_style, range(MOST))]
    assert len(set(looks)) == MOST

    def grey(colour: str) -> float:
        return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))

    assert all(abs(grey(one) - grey(two)) > 0.1 for one, two in itertools.pairwise(COLOURS))


def test_json_is_all_of_stdout(pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "figure.svg"
    assert typed(*pair, "--json", "--episodes", "0", "--repetitions", "50", "--out", out) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["figure"] == str(out)
    assert out.is_file()
    assert list(printed["environments"][0]["groups"]) == ["dqn", "qhat"]


def test_the_command_prints_a_table_and_draws_a_figure(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert typed(*pair, "--episodes", "0", "--repetitions", "50") == 0
    text = capsys.readouterr().out
    for words in (
        "IQM",
        "gap to 475",
        "P(qhat > dqn) = 0.67 [",
        "selection scores",
        "Seeds 0–2",
        "compare.png",
    ):
        assert words in text
    assert (tmp_path / "compare.png").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "There is no run to compare"),
        (["{run}", "{run}x"], "There is no run folder"),
        (["{run}/.."], "is no run folder: it has no config.json. It holds runs"),
        (["{run}", "--out", "c.jpg"], "expected a file that ends in .png, .svg or .pdf"),
        (["{run}", "--episodes", "-1"], "--episodes is -1"),
        (["{run}", "--axis", "time"], "--axis is 'time'; expected steps or seconds."),
        (["{run}", "--episode", "3"], "Did you mean '--episodes'"),
    ],
)
def test_bad_arguments_get_a_sentence(
    pair: list[Path], words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    assert typed(*(word.format(run=pair[0]) for word in words)) == 2
    printed = capsys.readouterr()
    assert sentence in " ".join((printed.err + printed.out).replace("│", "").split())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", "3"),
        ("seeds", 0),
        ("seeds", 10**8),
        ("steps", -1),
        ("recipe_name", "\x1b[2J"),
        ("env", "a\nb"),
    ],
)
def test_an_untrusted_configuration_is_checked(pair: list[Path], field: str, value: Any):
    config = json.loads((pair[0] / "config.json").read_text())
    config["spec"]["reference"] = None
    (pair[0] / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(UsageError, match=rf"config\.json'.*{field} is .*; expected"):
        compared(pair)
