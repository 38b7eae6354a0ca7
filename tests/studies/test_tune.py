"""Settings are searched, and what is found is a file of data that training takes.

Protects against a study that begins anew or proposes other settings after a stop, settings chosen by the
seeds that they are reported on, a hopeless trial trained to its end, and a preset file that is more than
data.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from test_benchmark import row

from command_line import qhat
from log_cosh import LogCosh
from places import ROOT
from qhat import tune as qhat_tune
from qhat.axes.explore import EpsilonGreedy
from qhat.cli import calls
from qhat.cli import tune as command
from qhat.cli.train import read_train
from qhat.recipes import RECIPES
from qhat.recipes.config import TrainConfig
from qhat.recipes.labels import label_of
from qhat.recipes.presets import PRESETS, Preset, PresetFile, read_preset
from qhat.recipes.recipe import Recipe
from qhat.runs.train import Interrupted
from qhat.studies.benchmark.results import summary
from qhat.studies.benchmark.suites import SUITES
from qhat.studies.tuning import final
from qhat.studies.tuning.parallel import Parallel
from qhat.studies.tuning.search import Search, best_of
from qhat.studies.tuning.space import SPACE, applied, space_of
from qhat.studies.tuning.study import Study, Trial
from qhat.system.errors import UsageError
from ray_cluster import RayCluster, processes

BASE = TrainConfig(
    "CartPole-v1", recipe=Recipe(hidden=(8,), learning_starts=50), steps=300, eval_every=100,
    eval_episodes=2, seed=command.TUNING,
)  # fmt: skip
DIMENSIONS = ("learning_rate", "max_gradient_norm")


def nothing(_) -> None:
    """Tell nobody."""


def searched(folder: Path, trials: int) -> list[Trial]:
    """Go on with a study up to a number of trials."""
    space = tuple(dimension for dimension in space_of(BASE.recipe, BASE.steps, DIMENSIONS))
    study = Study(folder)
    study.begin({"steps": BASE.steps})
    search = Search(study, space, BASE)
    while len(search.trials) < trials:
        assert search.run_one(lambda: False, nothing) is not None
    return search.trials


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "study"
    searched(folder, 1)
    return folder


def without_seconds(trials: list[Trial]) -> list[Trial]:
    return [dataclasses.replace(trial, seconds=0.0) for trial in trials]


def test_a_resumed_study_equals_an_uninterrupted_one(study: Path, tmp_path: Path):
    assert without_seconds(searched(study, 2)) == without_seconds(searched(tmp_path / "whole", 2))
    assert len((study / "trials.jsonl").read_text().splitlines()) == 2
    assert not (study / "trial").exists()


def test_a_stopped_trial_leaves_nothing_behind(study: Path, monkeypatch: pytest.MonkeyPatch):
    def stopped(_: str, config: TrainConfig, **__: object) -> None:
        assert config.run_dir is not None
        config.run_dir.mkdir()
        raise Interrupted.__new__(Interrupted)

    monkeypatch.setattr("qhat.studies.tuning.search.train", stopped)
    search = Search(Study(study), space_of(BASE.recipe, BASE.steps, DIMENSIONS), BASE)
    before = (study / "trials.jsonl").read_text()
    assert search.run_one(lambda: True, nothing) is None
    assert (study / "trials.jsonl").read_text() == before
    assert not (study / "trial").exists()


def with_better_ones(folder: Path) -> Search:
    """Return a search that has five trials, each of them better than any that will be."""
    study = Study(folder)
    known = {"learning_rate": 1e-3, "max_gradient_norm": None}
    better = tuple((step, 1e6) for step in (100, 200, 300, 400))
    for _ in range(5):
        study.add(Trial(known, "complete", 1e6, better, 1.0))
    return Search(study, space_of(BASE.recipe, BASE.steps, DIMENSIONS), BASE)


def test_a_poor_trial_is_stopped_early(tmp_path: Path):
    trial = with_better_ones(tmp_path).run_one(lambda: False, nothing)
    assert trial is not None
    assert trial.state == "pruned"
    assert trial.evaluations[-1][0] < BASE.steps


def test_a_poor_trial_is_stopped_early_on_a_cluster(ray_cluster: RayCluster, tmp_path: Path):
    search = with_better_ones(tmp_path)
    Parallel(search).run(6, lambda: False, lambda: False, nothing)
    trial = search.trials[-1]
    assert trial.state == "pruned"
    assert trial.evaluations[-1][0] < BASE.steps


def test_trials_train_side_by_side_on_a_cluster(ray_cluster: RayCluster, tmp_path: Path):
    space, study = space_of(BASE.recipe, BASE.steps, DIMENSIONS), Study(tmp_path / "study")
    study.begin({"steps": BASE.steps})
    search, killed = Search(study, space, BASE), []

    def kill_one() -> bool:
        for process in processes("qhat trial 2") if not killed else ():
            process.kill()
            killed.append(process.pid)
        return False

    Parallel(search).run(3, kill_one, lambda: False, nothing)
    assert len(killed) == 1
    trials = study.trials(space, BASE.recipe, BASE.steps)
    assert [trial.state for trial in trials] == ["complete"] * 3, [trial.why for trial in trials]
    assert all([step for step, _ in trial.evaluations] == [100, 200, 300] for trial in trials)
    assert len({str(trial.params) for trial in trials}) == 3


def test_seeds_for_tuning_comparing_and_reporting_do_not_overlap():
    assert BASE.seed == 2_000
    base = command._base(command.Tune("CartPole-v1"))
    assert (base.seed, base.steps, base.eval_every) == (2_000, 50_000, 5_000)
    assert command.FINAL >= command.TUNING + 1_000
    reported = {
        task.first + at for suite in SUITES.values() for task in suite.tasks for at in range(task.seeds)
    }
    assert max(reported) < 1_000


@pytest.mark.parametrize("name", RECIPES)
def test_every_value_of_a_recipes_space_makes_a_recipe(name: str):
    recipe = RECIPES[name]
    space = space_of(recipe, 1_000)
    explores = isinstance(recipe.explore, EpsilonGreedy)
    assert any(dimension.name == "epsilon_end" for dimension in space) == explores
    for at in range(6):
        params = {
            dimension.name: dimension.values[at % len(dimension.values)]
            if dimension.values
            else dimension.low
            for dimension in space
        }
        changed = applied(space, recipe, params, 1_000)
        assert changed.n_step == params["n_step"]
        assert changed.hidden == (params["width"] if recipe.hidden else 0,) * len(recipe.hidden)
        if explores:
            assert changed.explore.steps == round(params["epsilon_share"] * 1_000)  # pyright: ignore
        if params.get("learning_rate_fall", 1.0) != 1.0:
            assert changed.learning_rate_end == pytest.approx(0.1 * changed.learning_rate)


def test_replay_ratios_that_do_not_fit_the_copies_are_left_out():
    odd = Recipe(num_envs=3, replay_ratio=1.0)
    ratios = next(dimension for dimension in space_of(odd, 1_000) if dimension.name == "replay_ratio")
    assert ratios.values == (1.0,)


def test_the_documentation_lists_the_space():
    text = (ROOT / "docs" / "tuning.md").read_text()
    for dimension in SPACE:
        assert f"| `{dimension.name}` | {dimension.describe()} |" in text


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", '{"params": {}}',
        '{"params": {}, "state": "complete", "value": 1.0, "evaluations": [], "seconds": 1, "why": ""}',
        '{"params": {"learning_rate": 1.0, "max_gradient_norm": null}, "state": "complete", "value": 1.0,'
        ' "evaluations": [], "seconds": 1, "why": ""}',
        '{"params": {"learning_rate": 0.001, "max_gradient_norm": null}, "state": "complete",'
        ' "value": null, "evaluations": [], "seconds": 1, "why": ""}',
        '{"params": {"learning_rate": 0.001, "max_gradient_norm": null}, "state": "complete", "value": 1,'
        ' "evaluations": [[1, "x"]], "seconds": 1, "why": ""}',
    ],
)  # fmt: skip
def test_a_damaged_trial_is_a_sentence(line: str, tmp_path: Path):
    study = Study(tmp_path)
    study.log.write_text(line + "\n")
    with pytest.raises(UsageError):
        study.trials(space_of(BASE.recipe, BASE.steps, DIMENSIONS), BASE.recipe, BASE.steps)


def test_half_a_line_is_dropped_and_other_settings_are_refused(tmp_path: Path):
    space = space_of(BASE.recipe, BASE.steps, DIMENSIONS)
    study = Study(tmp_path / "study")
    study.begin({"steps": 400})
    trial = Trial({"learning_rate": 1e-3, "max_gradient_norm": 10.0}, "pruned", 1.0, ((100, 1.0),), 1.0)
    study.add(trial)
    with study.log.open("a") as file:
        file.write('{"params": {"lear')
    assert study.trials(space, BASE.recipe, BASE.steps) == [trial]
    study.add(trial)
    assert study.trials(space, BASE.recipe, BASE.steps) == [trial, trial]
    with pytest.raises(UsageError, match="started with steps 400, not 500"):
        study.begin({"steps": 500})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="is not a study"):
        Study(tmp_path / "other").begin({"steps": 400})


def judged(name: str, *scores: float) -> final.Judged:
    found = summary([row(at, score=score) for at, score in enumerate(scores)])
    assert found is not None
    return final.Judged(final.Candidate(name, BASE.recipe, {}, None), found)


def test_the_verdict_claims_no_more_than_the_intervals_show():
    default = judged("default", 9, 10, 11, 12)
    assert "better than the defaults:" in final.verdict([default, judged("trial-1", 20, 21, 22, 23)])
    assert "overlap" in final.verdict([default, judged("trial-1", 9, 12, 13, 14)])
    assert "No trial is better" in final.verdict([default, judged("trial-1", 1, 2, 3, 4)])
    assert "one seed" in final.verdict([judged("default", 1), judged("trial-1", 2)])
    assert final.best([default, judged("trial-1", 9, 10, 11, 12)]).candidate.name == "default"


def test_the_best_trials_are_complete_ones():
    states = [("complete", 1.0), ("pruned", 9.0), ("failed", None), ("complete", 3.0), ("complete", 2.0)]
    trials = [Trial({}, state, value, (), 1.0) for state, value in states]
    assert [trial.value for trial in best_of(trials, 2)] == [3.0, 2.0]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_file_is_read_as_it_was_written(name: str, tmp_path: Path):
    file = PresetFile(name, PRESETS[name], {"gravity": -5.0}, (), {"date": "today"})
    (tmp_path / "preset.json").write_text(file.text())
    assert read_preset(tmp_path / "preset.json") == file


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "x"}, "is no preset file"), ({"steps": 0}, "steps is 0"),
        ({"steps": "9"}, "steps is '9'"),
        ({"recipe": {"gamma": 2.0}}, "gamma is 2"), ({"recipe": {"gama": 1}}, "no field 'gama'"),
        ({"recipe": 1}, "A recipe is 1"), ({"env": 1}, "env is 1"), ({"found": 1}, "found is 1"),
        ({"wrap": 1}, "wrap is 1"), ({"wrap": [{"name": "os"}]}, "'os'"),
        ({"env_kwargs": 1}, "env_kwargs is 1"),
    ],
)  # fmt: skip
def test_a_preset_file_is_checked(change: dict, sentence: str, tmp_path: Path):
    path = tmp_path / "preset.json"
    path.write_text(json.dumps({**json.loads(_file().text()), **change}))
    with pytest.raises(UsageError, match=sentence) as error:
        read_preset(path)
    assert str(path) in str(error.value)


def _file() -> PresetFile:
    return PresetFile(
        "CartPole-v1", Preset(Recipe(gamma=0.5, hidden=(8, 8)), 300, 100, 2), {"sutton_barto_reward": True}
    )


def test_training_takes_a_preset_file_and_every_flag_overrides_it(tmp_path: Path):
    path = tmp_path / "preset.json"
    path.write_text(_file().text())
    words = ["CartPole-v1", "--preset", str(path), "--steps", "7", "--n-step", "4"]
    args = read_train(words)
    assert (args.steps, args.eval_every, args.recipe.n_step, args.recipe.gamma) == (7, 100, 4, 0.5)
    assert list(args.env_kwargs) == ["sutton_barto_reward"]
    assert args.recipe_name == label_of(args.recipe, spans=(7,))
    config = TrainConfig.of("CartPole-v1", preset_file=path, seeds=3).validate()
    assert (config.recipe.gamma, config.steps, config.seeds) == (0.5, 300, 3)
    for words, sentence in (
        (["--recipe", "dqn"], "cannot be combined with --recipe"),
        (["--resume"], "cannot be combined with --resume"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=sentence):
            read_train(["CartPole-v1", "--preset", str(path), *words])
    with pytest.raises(UsageError, match="no preset file"):
        read_train(["CartPole-v1", "--preset", str(tmp_path / "nowhere.json")])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["CartPol-v1"], "Did you mean 'CartPole-v1'"),
        (["CartPole-v1", "--recipe", "dqm"], "Did you mean 'dqn'"),
        (["CartPole-v1", "--trials", "0"], "trials is 0"),
        (["CartPole-v1", "--seeds", "1001"], "at most 1,000"),
        (["CartPole-v1", "--timeout", "0"], "timeout is 0"),
        (["CartPole-v1", "--only", "gama"], "Did you mean 'gamma'"),
        (
            ["CartPole-v1", "--recipe", "noisy_dqn", "--only", "epsilon_end"],
            "does not use ε-greedy",
        ),
        (["CartPole-v1", "--steps", "-1"], "steps is -1"),
    ],
)
def test_bad_tune_arguments_are_refused(words: list[str], sentence: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        command.run(words)
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install .*\[tune\]'"):
        command.run(["CartPole-v1"])


def test_the_command_searches_compares_and_writes_a_preset(tmp_path: Path):
    words = "tune CartPole-v1 --trials 1 --seeds 1 --steps 300 --only max_gradient_norm --top 1"
    words += " --final-seeds 1 --episodes 2 --study study --json --eval-episodes 2"
    done = qhat(*words.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["trials"] == {"complete": 1, "pruned": 0, "failed": 0}
    assert set(printed["scores"]) == {"default", "trial-1"}
    assert printed["scores"]["default"]["seeds"] == [3_000]
    file = read_preset(tmp_path / printed["preset"])
    assert (file.env, file.preset.steps) == ("CartPole-v1", 300)
    assert file.found["verdict"] in (tmp_path / "study" / "README.md").read_text()
    assert "qhat train CartPole-v1 --preset study/preset.json" in done.stderr


def test_parts_from_outside_are_tuned_recorded_and_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = (
        "tune CartPole-v1 --recipe dqn --trials 1 --seeds 1 --steps 300 --only max_gradient_norm --top 1"
    )
    words = [
        *words.split(),
        *["--final-seeds", "1", "--episodes", "2", "--study", "study", "--eval-episodes", "2"],
    ]
    named, parts = "log_cosh:LogCosh", ["--parts", "log_cosh:LogCosh"]
    assert "head 'log_cosh' is not known" in qhat(*words, "--head", "log_cosh").stderr
    done = qhat(*words, "--head", "log_cosh:scale=2", *parts)
    assert done.returncode == 0, done.stderr
    assert f"qhat train CartPole-v1 --preset study/preset.json --parts {named}" in done.stderr
    for file in ("study.json", "preset.json"):
        assert json.loads((tmp_path / "study" / file).read_text())["parts"] == {"head": named}
    path = Path("study/preset.json")
    assert named in read_preset(path, (LogCosh,)).found["command"]
    assert TrainConfig.of("CartPole-v1", preset_file=path, parts=[LogCosh]).recipe.head == LogCosh(
        scale=2.0
    )
    for sentence, done in (
        (f"The study uses head log_cosh, which is no part of qhat; expected --parts {named}", qhat(*words)),
        (
            f"The preset uses head log_cosh, which is no part of qhat; expected --parts {named}",
            qhat("train", "CartPole-v1", "--preset", "study/preset.json"),
        ),
    ):
        assert sentence in done.stderr
        assert done.returncode == 2
    assert read_train(["CartPole-v1", "--preset", str(path), *parts], (LogCosh,)).recipe.head == LogCosh(
        2.0
    )


def test_python_tunes_parts_as_values_or_text(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(calls, "tuned", lambda args, words: asked.append((args, words)) or ({}, 0))
    qhat_tune("CartPole-v1", head=LogCosh(scale=2.0))
    qhat_tune("CartPole-v1", head="log_cosh:scale=2", parts=(LogCosh,))
    (first, words), second = asked
    assert (first, words) == second
    assert words == ["CartPole-v1", "--head", "log_cosh:scale=2.0", "--parts", "log_cosh:LogCosh"]
    with pytest.raises(UsageError, match="head 'log_cosh' is not known"):
        qhat_tune("CartPole-v1", head="log_cosh")


@pytest.mark.parametrize(("name", "axis"), [("target", "target"), ("epsilon_end", "explore")])
def test_a_part_that_is_given_is_not_searched(name: str, axis: str):
    recipe = RECIPES["dqn"]
    assert name in [dimension.name for dimension in space_of(recipe, 1_000)]
    assert name not in [dimension.name for dimension in space_of(recipe, 1_000, (), [axis])]
    with pytest.raises(UsageError, match=f"searches what {axis} chooses"):
        space_of(recipe, 1_000, [name], [axis])
