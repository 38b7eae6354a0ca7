"""A suite is trained, judged and compared by one command.

Protects against a result that is trained twice or mixed from other settings, an interrupted suite that
begins anew, a comparison that cannot fail, and a page that hides what was lost or not run.
"""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import pytest

from command_line import qhat
from places import ROOT
from qhat.cli import benchmark as command
from qhat.environments.catalogue import find
from qhat.recipes.presets import GAMES, PRESETS
from qhat.recipes.recipe import Recipe
from qhat.runs import train as experiment
from qhat.studies.benchmark import normalised, running, suites
from qhat.studies.benchmark.page import page
from qhat.studies.benchmark.results import Row, Summary, moved_down, read_rows, summary, write_rows
from qhat.studies.benchmark.suites import SUITES, suite_of
from qhat.studies.benchmark.tasks import SOURCES, Published, Suite, Task
from qhat.system.errors import UsageError, ranges
from ray_cluster import RayCluster

TINY = Recipe(hidden=(8,), learning_starts=50)
SETTINGS = {"recipe": TINY, "steps": 900, "eval_every": 300, "eval_episodes": 2, "save_every": 300}
TASK = Task("CartPole-v1", 2, SETTINGS)
EPISODES = 3


def row(seed: int = 0, which: str = "best", score: float = 1.0, task: str = "CartPole-v1", **fields) -> Row:
    given = {
        "success_rate": None, "episodes": 100, "steps": 600, "seconds": 2.5, "run_seeds": 2,
        "date": "2026-01-01", "qhat": "0", "jax": "0", "python": "3", "machine": "a, b", "command": "qhat",
    }  # fmt: skip
    return Row(task, seed, which, float(score), **{**given, **fields})


def of(*scores: float, first: int = 0) -> Summary:
    found = summary([row(first + at, score=score) for at, score in enumerate(scores)])
    assert found is not None
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one task was stopped half-way, gone on with, and judged."""
    base = tmp_path_factory.mktemp("suite")
    config = TASK.config(2, 0, running.run_folder(base, TASK, 0, 2))
    reached = 0

    def look(now: experiment.Progress) -> None:
        nonlocal reached
        reached = now.step

    with pytest.raises(experiment.Interrupted):
        running.trained(config, "first", look, lambda: reached >= 300)
    assert running.gathered(base, TASK, range(1_000), EPISODES) == []
    run = running.trained(config, "second")
    assert run.summary()["step"] == 900
    return base


def test_a_stopped_run_is_resumed_and_a_finished_one_reused(base: Path, tmp_path: Path):
    path = running.run_folder(base, TASK, 0, 2)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*.safetensors")}
    taken = running.trained(
        TASK.config(2, 0, path), "third", progress=lambda _: pytest.fail("trained again")
    )
    assert before == {file: file.stat().st_mtime_ns for file in path.rglob("*.safetensors")}
    whole = running.trained(TASK.config(2, 0, tmp_path / "whole"), "whole")
    assert taken.weights_sha256() == whole.weights_sha256()


def test_rows_are_the_fresh_scores_of_every_seed_and_are_kept(base: Path, monkeypatch):
    rows = running.gathered(base, TASK, range(1_000), EPISODES)
    assert [(each.seed, each.which) for each in rows] == [
        (0, "best"),
        (0, "last"),
        (1, "best"),
        (1, "last"),
    ]
    run = running.Run.open(running.run_folder(base, TASK, 0, 2))
    for which in ("best", "last"):
        fresh = run.evaluate(EPISODES, which).per_seed
        assert [each.mean_return for each in rows if each.which == which] == pytest.approx(fresh, abs=1e-4)
    assert all(each.steps == 900 and each.command == "second" and (each.seconds or 0) > 0 for each in rows)
    monkeypatch.setattr(running.Run, "evaluate", lambda *_: pytest.fail("judged again"))
    assert running.gathered(base, TASK, range(1_000), EPISODES) == rows
    assert running.gathered(base, TASK, range(1_000), EPISODES, judging=False) == rows
    assert running.gathered(base, TASK, range(1_000), EPISODES + 1, judging=False) == []
    assert running.gathered(base, TASK, range(5, 1_000), EPISODES) == []


@pytest.mark.parametrize(("best_step", "plays"), [([900, 900], ["best"]), ([600, 900], ["best", "last"])])
def test_weights_that_are_best_and_last_play_one_time(
    base: Path, tmp_path: Path, monkeypatch, best_step, plays
):
    path = tmp_path / "run"
    shutil.copytree(running.run_folder(base, TASK, 0, 2), path)
    run = running.Run.open(path)
    scored, played = run.evaluate(EPISODES), []
    monkeypatch.setattr(running.Run, "summary", lambda _: {"step": 900, "best_step": best_step})
    monkeypatch.setattr(running.Run, "evaluate", lambda _, __, which: played.append(which) or scored)
    # Another number of episodes than before, so that nothing is there yet.
    scores = running.judged(run, TASK, EPISODES + 1)["scores"]
    assert played == plays
    assert scores["best"] == scores["last"]


def test_runs_with_other_settings_are_never_mixed_in(base: Path):
    path = running.run_folder(base, TASK, 0, 2)
    other = dataclasses.replace(TASK, settings={**SETTINGS, "recipe": dataclasses.replace(TINY, gamma=0.9)})
    with pytest.raises(UsageError, match="another gamma"):
        running.trained(other.config(2, 0, path), "x")
    said: list[str] = []
    assert running.gathered(base, other, range(1_000), EPISODES, said.append) == []
    assert "another gamma" in said[0]


def test_a_run_killed_before_its_first_checkpoint_starts_again(base: Path, tmp_path: Path):
    path = tmp_path / "run"
    path.mkdir()
    for name in ("config.json", "metrics.csv", "eval.csv"):
        (path / name).write_bytes((running.run_folder(base, TASK, 0, 2) / name).read_bytes())
    assert running.trained(TASK.config(2, 0, path), "x").summary()["step"] == 900


def test_an_empty_table_is_not_written(tmp_path: Path):
    words = "benchmark classic --table --run-dir none --out page.md"
    ended = qhat(*words.split(), cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert "No task of suite 'classic' has a finished run in 'none'" in " ".join(ended.stderr.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["[]", '{"scores": {}}', '{"seconds": "1"}', '{"scores": {"best": 1}}', "{"]
)
def test_damaged_notes_are_a_sentence(text: str, tmp_path: Path):
    (tmp_path / running.NOTES).write_text(text)
    with pytest.raises(UsageError, match=r"benchmark\.json"):
        running.read_notes(tmp_path)


def test_a_table_is_read_as_it_was_written(tmp_path: Path):
    rows = [row(3, "last", -1.25, success_rate=0.5), row(4, seconds=None, command='a "b", c')]
    write_rows(tmp_path / "t.csv", rows)
    assert read_rows(tmp_path / "t.csv") == rows


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("task,", "tusk,", "first line"), ("best", "beast", "line 2 has which 'beast'"),
        ("1.0,", "one,", "line 2 is damaged"), ("1.0,", "nan,", "not finite"),
        ("0,best", "best", "14 values"),
        ("2026", '"2026', "cannot be read as CSV"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_a_sentence(old: str, new: str, sentence: str, tmp_path: Path):
    path = tmp_path / "t.csv"
    write_rows(path, [row()])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UsageError, match=sentence):
        read_rows(path)


def test_a_check_fails_when_the_interval_ends_below_the_pinned_one():
    pin = of(90, 95, 100, 105, first=0)
    assert moved_down("T", of(80, 85, 92, 99, first=9), pin) is None, "they overlap"
    assert moved_down("T", of(200, 201, first=9), pin) is None, "better is no failure"
    worse = moved_down("T", of(70, 75, 80, 85, first=9), pin) or ""
    assert "T moved down" in worse
    assert "9–12" in worse
    assert "0–3" in worse
    assert "one seed" in (moved_down("T", of(1), pin) or "")
    assert "no fresh" in (moved_down("T", None, pin) or "")


def test_the_page_says_where_qhat_is_behind_and_what_was_not_run():
    rivals = (
        Published("Low", 1, 600, "rlox"),
        Published("Mid", 15, 300, "rlox"),
        Published("High", 99, 600, "rlox"),
    )
    suite = Suite("t", "T", "About.", (dataclasses.replace(TASK, published=rivals), Task("Acrobot-v1", 2)))
    text = page(suite, {"CartPole-v1": [row(at, which, 10.0 * (at + 1)) for which in ("best", "last")
                                        for at in range(2)]})  # fmt: skip
    assert "| Acrobot-v1 | 100,000 | | not run yet |" in text
    assert "Not run yet: Acrobot-v1." in text
    lines = {line.split(" | ")[1]: line for line in text.splitlines() if "| rlox" in line or " | " in line}
    assert lines["Low"].endswith("| ahead |")
    assert lines["Mid"].endswith("| within our interval, with 2 times its steps |")
    assert lines["High"].endswith("| **behind** |")
    assert text.count("\n- CartPole-v1: ") == 1
    assert "- CartPole-v1: High has 99 at 600 steps, qhat 15.0 [10.0, 20.0]" in text
    assert f"- rlox: {SOURCES['rlox']}" in text


def test_one_seed_has_no_interval_on_the_page_either():
    published = tuple(Published(f"X{score}", score, 1, "rlox") for score in (0, 1, 2))
    suite = Suite("t", "T", "About.", (Task("CartPole-v1", 1, published=published),))
    text = page(suite, {"CartPole-v1": [row(0, "best"), row(0, "last")]})
    assert "1.0 (one seed: no interval)" in text
    for way in ("higher", "equal", "lower"):
        assert f"{way}, by one seed" in text
    assert "- CartPole-v1: X2 has 2 at 1 steps, qhat 1.0" in text
    assert "Behind in none" not in text


def _played(*scores: tuple[float, float], seeds: int = 2) -> tuple[Suite, dict[str, list[Row]]]:
    """A suite of games of which 10 is a random player's score and 30 a human's, and rows of two seeds."""
    tasks, rows = [], {}
    for at, pair in enumerate(scores):
        name = f"Game{at}-v5"
        theirs = (Published("Other", 20.0 + 10 * at, 100, "DER"),)
        tasks.append(Task(name, 2, SETTINGS, published=theirs, players=(10.0, 30.0)))
        rows[name] = [
            row(seed, which, score if which == "last" else 1e9, name)
            for seed, score in enumerate(pair[:seeds])
            for which in ("best", "last")
        ]
    return Suite("games", "Games", "About.", tuple(tasks)), rows


def test_normalised_scores_are_of_last_weights_beside_those_of_others_in_the_same_games():
    suite, rows = _played((10, 30), (20, 40), (50, 50), (0, 10))
    text = "\n".join(normalised.section(suite, rows))
    assert "of 4 of 4 games, 2 seeds each" in text
    assert "| Game1-v5 | 10 | 30 | 30.0 (1.00) | 30.0 (1.00) |" in text
    # The middle four: of ours −0.5, 0, 0, 0.5, 1, 1.5, 2, 2, and of theirs 0.5, 1, 1.5, 2 the middle two.
    (line,) = [line for line in text.splitlines() if "interquartile mean**" in line]
    assert line.startswith("| **interquartile mean** | 0 | 1 | **0.750** [")
    assert line.endswith("] | 1.250 |")
    whole = page(suite, rows)
    assert text in whole
    # Best weights have 1e9 in every game, and are not what is compared.
    assert "| qhat, last |" in whole
    assert "- Game0-v5: Other has 20" not in whole
    assert "- Game3-v5: Other has 50 at 100 steps, qhat 5.0 [" in whole


def test_games_without_runs_are_left_out_of_both_sides_and_one_seed_has_no_interval():
    suite, rows = _played((10, 30), (20, 40), seeds=1)
    del rows["Game1-v5"]
    text = "\n".join(normalised.section(suite, rows))
    assert "of 1 of 2 games, 1 seed each" in text
    assert "**0.000** (one seed: no interval) | 0.500 |" in text
    assert "Game1" not in text
    assert normalised.section(suite, {}) == []
    assert normalised.section(suite_of("smoke"), {"CartPole-v1": [row()]}) == []


def test_a_game_with_more_seeds_than_another_counts_with_as_many():
    suite, rows = _played((10, 30), (20, 40))
    rows["Game0-v5"] = rows["Game0-v5"][:2]
    assert "of 2 of 2 games, 1 seed each" in "\n".join(normalised.section(suite, rows))


def test_the_atari_games_are_every_third_of_the_26():
    assert [task.env for task in SUITES["atari-100k"].tasks] == [
        f"{game}-v5" for game in sorted(OF_100K)[2::3]
    ]


OF_100K = (
    "Alien", "Amidar", "Assault", "Asterix", "BankHeist", "BattleZone", "Boxing", "Breakout",
    "ChopperCommand", "CrazyClimber", "DemonAttack", "Freeway", "Frostbite", "Gopher", "Hero", "Jamesbond",
    "Kangaroo", "Krull", "KungFuMaster", "MsPacman", "Pong", "PrivateEye", "Qbert", "RoadRunner",
    "Seaquest", "UpNDown",
)  # fmt: skip


@pytest.mark.parametrize("name", SUITES)
def test_a_suites_environments_and_settings_exist(name: str):
    suite = suite_of(name)
    assert len({task.env for task in suite.tasks}) == len(suite.tasks)
    for task in suite.tasks:
        config = task.config(task.seeds, 0).validate()
        assert find(config.env, config.env_kwargs).name == task.env
        assert config.steps % config.eval_every == 0
        assert all(theirs.source in SOURCES for theirs in task.published)


def test_minatar_has_one_preset_and_the_papers_conditions():
    recipes = [PRESETS[f"{game}-MinAtar"].recipe for game in GAMES]
    assert all(recipe == recipes[0] for recipe in recipes)
    for suite in (SUITES["minatar"], SUITES["minatar-5m"]):
        for task in suite.tasks:
            config = task.config(5, 0)
            assert config.env_kwargs == {"use_minimal_action_set": False}
            assert config.steps == (1_000_000 if suite.name == "minatar" else 5_000_000)
            assert config.recipe.learning_rate_steps == config.steps
    paper = SUITES["minatar-dqn"].tasks[0].config(5, 0)
    assert (paper.env_kwargs, paper.steps) == ({"use_minimal_action_set": False}, 1_000_000)


def test_the_papers_dqn_row_matches_its_suite():
    pinned = read_rows(ROOT / "docs" / "results" / "minatar-dqn.csv")
    published = {
        task.env: row
        for task in SUITES["minatar"].tasks
        for row in task.published
        if row.source == "minatar-dqn"
    }
    assert list(published) == ["Seaquest-MinAtar"]
    for env, row in published.items():
        of_task = [each for each in pinned if each.task == env]
        measured = summary(of_task)
        assert measured is not None
        assert len(measured.seeds) == 5
        assert {each.steps for each in of_task} == {row.steps}
        assert round(measured.iqm, 1) == row.score
    assert not any(row.source == "minatar-dqn" for row in SUITES["minatar-dqn"].tasks[3].published)


PINNED = ("classic", "minatar", "minatar-5m")


def test_the_readmes_table_matches_the_pinned_pages():
    root = ROOT
    section = (root / "README.md").read_text().partition("## What it reaches")[2].partition("\n## ")[0]
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in section.splitlines()
        if "-v" in line or "-MinAtar" in line
    ]
    pages = [(root / "docs" / "results" / f"{name}.md").read_text() for name in PINNED]
    lines = [line for text in pages for line in text.splitlines()]
    assert len(table) == 8
    for task, steps, ours, others in table:
        assert any(
            line.startswith(f"| {task}") and f"| {steps} |" in line and f"| {ours} |" in line
            for line in lines
        )
        theirs = others.split()[0]
        assert any(line.startswith(f"| {task} |") and f"| {theirs}" in line for line in lines), others


def test_ranges_are_short():
    assert ranges([4, 0, 1, 2, 7]) == "0–2, 4, 7"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["clasic"], "Did you mean 'classic'"),
        (["classic", "--only", "Acrobot"], "Did you mean 'Acrobot-v1'"),
        (["minatar", "--seed", "2000"], "expected 0 to 999"),
        (["robots", "--seed", "0"], "WalkerWalk-v1 are 0 to 5; expected 100 to 999"),
        (["classic", "--seeds", "0"], "seeds is 0"),
        (["classic", "--episodes", "0"], "episodes is 0"),
        (["classic", "--pin", "x.csv"], "pin needs check"),
        (["classic", "--check", "--pin", "x.csv"], "no pinned table 'x.csv'"),
        (["classic", "--check", "--table"], "needs run_dir"),
        (["classic", "--out", "x.html"], "ends in .md"),
    ],
)
def test_bad_benchmark_arguments_are_refused(words: list[str], sentence: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        command.run(words)
    assert list(tmp_path.iterdir()) == []


def test_a_check_never_compares_a_seed_with_itself(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(Path("pin.csv"), [row(at, task="CartPole-v1") for at in range(1_100, 1_104)])
    words = ["smoke", "--only", "CartPole-v1", "--check", "--pin", "pin.csv", "--seed", "1098"]
    with pytest.raises(UsageError, match="Seed 1100 is pinned"):
        command.run(words)


SHORT = {**SETTINGS, "steps": 400, "eval_every": 200}
TINY_SUITE = suites.Suite(
    "tiny", "Tiny", "Two.", (Task("CartPole-v1", 2, SHORT), Task("Acrobot-v1", 2, SHORT))
)


def test_the_command_writes_keeps_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suites, "SUITES", {"tiny": TINY_SUITE})
    words = "benchmark tiny --only CartPole-v1 --episodes 2"
    tiny = functools.partial(qhat, *words.split(), cwd=tmp_path)
    done = tiny("--out", "page.md", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["tasks"]["Acrobot-v1"] is None
    assert printed["tasks"]["CartPole-v1"]["best"]["seeds"] == [0, 1]
    assert "qhat benchmark tiny --only CartPole-v1" in (tmp_path / "page.md").read_text()
    rows = read_rows(tmp_path / "page.csv")
    # Another machine's rows of a task that has no runs here stay.
    write_rows(tmp_path / "page.csv", [*rows, row(0, task="Acrobot-v1"), row(0, "last", task="Acrobot-v1")])

    write_rows(
        tmp_path / "pin.csv", [dataclasses.replace(each, mean_return=1e6 + each.seed) for each in rows]
    )
    done = tiny("--check", "--pin", "pin.csv", "--json", "--run-dir", "fresh", "--out", "page.md")
    assert done.returncode == 1, done.stderr
    printed = json.loads(done.stdout)
    assert not printed["check"]["passed"]
    assert "CartPole-v1 moved down" in printed["check"]["failures"][0]
    assert "CartPole-v1 moved down" in done.stderr
    assert printed["tasks"]["CartPole-v1"]["best"]["seeds"] == [1_020, 1_021]
    assert [each.seed for each in read_rows(tmp_path / "page.csv") if each.task == "Acrobot-v1"] == [0, 0]

    write_rows(tmp_path / "pin.csv", [dataclasses.replace(each, mean_return=-1.0) for each in rows])
    done = tiny("--check", "--table", "--pin", "pin.csv", "--run-dir", "fresh")
    assert done.returncode == 0, done.stderr
    assert "no interval moved down" in done.stderr


def test_a_suite_trains_its_seeds_on_a_cluster(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(suites, "SUITES", {"tiny": TINY_SUITE})
    words = "benchmark tiny --only CartPole-v1 --episodes 2 --cluster auto --run-dir runs --json"
    done = qhat(*words.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"]["CartPole-v1"]["best"]["seeds"] == [0, 1]
    folder = running.run_folder(tmp_path / "runs", TASK, 0, 2)
    assert json.loads((folder / "config.json").read_text())["cluster"] == "auto"


def test_a_suite_is_trained_with_a_part_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its runs have a folder of their own, and its table never replaces the table of the suite."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / command.RESULTS).mkdir(parents=True)
    monkeypatch.setattr(suites, "SUITES", {"tiny": TINY_SUITE})
    words = ["benchmark", "tiny", "--only", "CartPole-v1", "--episodes", "2", "--seeds", "1"]
    other = ["--head", "log_cosh:scale=2.0", "--parts", "log_cosh:LogCosh"]
    done = qhat(*words, *other, "--json")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "benchmark" / "tiny-head-log_cosh-scale=2.0"
    page = (folder / "tiny.md").read_text()
    assert "qhat benchmark tiny --seeds 1 --only CartPole-v1 " + " ".join(other) in page
    assert "In every recipe: head log_cosh:scale=2.0." in page
    (config,) = folder.glob("*/seeds-0-0/config.json")
    assert json.loads(config.read_text())["parts"] == {"head": "log_cosh:LogCosh"}
    again = qhat(*words, "--table", "--run-dir", str(folder))
    assert again.returncode == 2
    assert "expected --parts log_cosh:LogCosh" in again.stderr
    assert list((tmp_path / command.RESULTS).iterdir()) == []
