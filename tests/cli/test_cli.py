"""The command line as a person uses it: sentences for mistakes, JSON for programs, exit codes.

Protects against a mistake discovered after a minute of import, a run overwritten, a damaged
checkpoint loaded, and progress mixed into JSON.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import qhat
from full import FULL
from qhat import __version__, recipes
from qhat.cli.train import read_train

FAST = ("--hidden", "16", "--learning-starts", "50", "--eval-episodes", "2")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = qhat("train", "CartPole-v1", "--steps", "800", "--seeds", "2", "--run-dir", str(folder),
                "--eval-every", "400", "--json", *FAST)  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["step"] == 800
    assert len(outcome["best_score"]) == 2
    assert "next:" in done.stderr
    assert f"qhat evaluate {folder}" in done.stderr.replace("\n", "")
    return folder


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "CartPol-v1"), "Did you mean 'CartPole-v1'?"),
        (("train", "Breakout"), "Did you mean 'Breakout-MinAtar'?"),
        (("train", "CartPole-v1", "--recipe", "doubledqn"), "Did you mean 'double_dqn'?"),
        (("train", "Pendulum-v1", "--bins", "3", "4"), "--bins has 2 numbers"),
        (
            ("train", "CartPole-v1", "--batch-size", "64", "--replay-capacity", "32"),
            "is 64, but replay",
        ),
        (("train", "CartPole-v1", "--steps", "-5"), "--steps is -5"),
        (("train", "CartPole-v1", "--n-step", "0"), "--n-step is 0"),
        (("train", "CartPole-v1", "--sampler", "prioritised:alpha=1.5"), "alpha is 1.5"),
        (("train", "CartPole-v1", "--head", "categorical:v_min=1,v_max=0"), "expected v_min < v_max"),
        (("train", "CartPole-v1", "--head", "categorial"), "Did you mean 'categorical'"),
        (("train", "CartPole-v1", "--policy", "softmax:tau=0"), "temperature above 0"),
        (("train", "CartPole-v1", "--explore", "greedy"), "never tries another action"),
        (("train", "CartPole-v1", "--sampler", "priorotised"), "Did you mean 'prioritised'?"),
        (("train", "CartPole-v1", "--gamma", "1.5"), "--gamma is 1.5"),
        (("train", "CartPole-v1", "--seeds", "0"), "--seeds is 0"),
        (("train", "CartPole-v1", "--resume"), "--resume needs --run-dir"),
        (("train",), "env"),
        (("evaluate", "nowhere"), "no run folder 'nowhere'"),
        (("plot", "nowhere"), "no run folder 'nowhere'"),
        (("report", "nowhere"), "no run folder 'nowhere'"),
        (("envs", "CartPool"), "Did you mean 'CartPole-v1'?"),
        (("trian",), "Did you mean 'train'?"),
    ],
)
def test_bad_arguments_print_one_sentence_and_exit_2(words: tuple[str, ...], sentence: str) -> None:
    done = qhat(*words)
    flat = " ".join(done.stderr.replace("│", " ").split())
    assert done.returncode == 2, done.stderr
    assert sentence in flat
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_bad_arguments_are_refused_before_jax_is_imported() -> None:
    code = (
        "import sys\n"
        "from qhat.cli.main import main\n"
        "for words in (['train', 'CartPol'], ['train', 'CartPole-v1', '--n-step', '0'], ['recipes'],"
        " ['envs'], ['evaluate', 'nowhere'], ['report', 'nowhere'], ['report'], []):\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "assert 'jax' not in sys.modules, 'JAX was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_existing_run_is_not_overwritten(run_folder: Path) -> None:
    before = (run_folder / "metrics.csv").read_bytes()
    done = qhat("train", "CartPole-v1", "--run-dir", str(run_folder))
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert "--resume" in done.stderr
    assert (run_folder / "metrics.csv").read_bytes() == before


def test_a_run_folder_is_complete(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()}
    expected = {"config.json", "command.txt", "system.json", "metrics.csv", "eval.csv",
                "checkpoints", "last", "best", "README.md"}  # fmt: skip
    assert expected <= names
    assert (run_folder / "checkpoints" / "800").is_dir()
    card = (run_folder / "README.md").read_text()
    assert "CartPole-v1" in card
    assert "qhat evaluate" in card
    config = json.loads((run_folder / "config.json").read_text())
    assert config["recipe"]["hidden"] == [16]
    assert config["recipe"]["gamma"] == recipes.get(recipes.DEFAULT).gamma


def test_evaluate_prints_one_json_object(run_folder: Path) -> None:
    done = qhat("evaluate", str(run_folder), "--episodes", "3", "--json")
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)
    wanted = {"env", "episodes", "mean_return", "std_return", "iqm", "ci95", "per_seed"}
    assert wanted <= set(score)
    assert (score["env"], score["episodes"], len(score["per_seed"])) == ("CartPole-v1", 3, 2)


def test_plot_draws_the_curve(run_folder: Path) -> None:
    done = qhat("plot", str(run_folder))
    assert done.returncode == 0, done.stderr
    assert (run_folder / "progress.png").stat().st_size > 10_000


def test_resume_uses_the_runs_settings(run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    done = qhat("train", "CartPole-v1", "--resume", "--run-dir", str(copy), "--steps", "1000", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 1000
    assert "resuming at step 800." in done.stderr
    # A quarter of the 800 steps that the run was begun for.
    assert "  ε 0.1 since step 200\n" in done.stderr
    assert "- ε 0.1 since step 200" in (copy / "README.md").read_text()


@pytest.mark.parametrize("harm", ["truncate", "flip", "foreign", "manifest", "nothing"])
def test_a_damaged_checkpoint_is_refused(run_folder: Path, tmp_path: Path, harm: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    path = copy / "best" / "weights.safetensors"
    manifest = copy / "best" / "manifest.json"
    if harm == "truncate":
        path.write_bytes(path.read_bytes()[:-40])
    elif harm == "flip":
        data = bytearray(path.read_bytes())
        data[-3] ^= 255
        path.write_bytes(bytes(data))
    elif harm == "foreign":
        config = json.loads((copy / "config.json").read_text())
        config["recipe"]["hidden"] = [32]
        (copy / "config.json").write_text(json.dumps(config))
    elif harm == "manifest":
        manifest.write_text("{")
    else:
        manifest.unlink()
    done = qhat("evaluate", str(copy), "--episodes", "1")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    words = {"truncate": "damaged", "flip": "damaged", "foreign": "different network architecture",
             "manifest": "damaged", "nothing": "no qhat checkpoint"}  # fmt: skip
    assert words[harm] in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), *([(signal.SIGTERM, 143)] if FULL else [])]
)
def test_a_signal_leaves_a_checkpoint_that_resumes(number: int, code: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "qhat", "train", "CartPole-v1", "--steps", "50000000",
               "--run-dir", str(folder), *FAST]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        metrics = folder / "metrics.csv"
        if metrics.exists() and len(metrics.read_text().splitlines()) > 2:
            break
        time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    reached = int((folder / "last").read_text())
    done = qhat("train", "CartPole-v1", "--resume", "--run-dir", str(folder),
                "--steps", str(reached + 100), "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == reached + 100
    assert json.loads((folder / "config.json").read_text())["steps"] == reached + 100


def test_a_run_stopped_before_evaluating_resumes_to_one(tmp_path: Path) -> None:
    done = qhat("train", "CartPole-v1", "--steps", "5000", "--eval-every", "50000",
                "--max-seconds", "0.0001", "--json", "--run-dir", str(tmp_path / "run"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(word))
    assert outcome["best_score"][0] > 0
    assert outcome["best_step"] == [outcome["step"]]


def test_of_a_repeated_recipe_flag_the_last_counts() -> None:
    args = read_train(["CartPole-v1", "--recipe", "double_dqn", "--recipe", "dqn"])
    assert (args.recipe_name, args.recipe.policy.name) == ("dqn", "greedy")


def test_resuming_as_another_recipe_is_refused(run_folder: Path) -> None:
    before = (run_folder / "config.json").read_bytes()
    words = ("--resume", "--recipe", "dqn", "--steps", "900", "--run-dir", str(run_folder))
    done = qhat("train", "CartPole-v1", *words)
    assert done.returncode == 2
    assert "recipe qhat + hidden 16, learning_starts 50 and not dqn" in done.stderr
    assert (run_folder / "config.json").read_bytes() == before


def test_too_large_a_replay_is_refused_with_its_size(tmp_path: Path) -> None:
    done = qhat("train", "Breakout-MinAtar", "--replay-capacity", "2000000000",
                "--run-dir", str(tmp_path / "run"))  # fmt: skip
    assert done.returncode == 2
    assert "GiB" in done.stderr
    assert not (tmp_path / "run").exists()


def test_recipes_and_envs_print_json() -> None:
    recipes = json.loads(qhat("recipes", "--json").stdout)
    assert recipes["double_dqn"]["policy"]["name"] == "double"
    envs = json.loads(qhat("envs", "minatar", "--json").stdout)
    assert {entry["id"] for entry in envs} >= {"Breakout-MinAtar", "Asterix-MinAtar"}


def test_no_arguments_and_help_print_the_usage() -> None:
    for words in ((), ("--help",), ("train", "--help")):
        done = qhat(*words)
        assert done.returncode == 0
        assert "train" in done.stdout


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_printed(flag: str) -> None:
    assert qhat(flag) == (0, f"qhat {__version__}\n", "")
