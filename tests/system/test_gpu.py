"""The choice of a device, its sentences where it is absent, and a GPU where there is one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import command_line
from qhat import TrainConfig
from qhat.system import devices, host_memory
from qhat.system.errors import UsageError

PLUGIN = any(importlib.util.find_spec(name) for name in devices.PLUGINS)
TRAIN = ["train", "CartPole-v1", "--steps", "500", "--eval-episodes", "2"]


def _gpus() -> str:
    """What the driver lists; '' without a driver or without JAX's CUDA packages."""
    if not PLUGIN:
        return ""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


GPUS = _gpus()


@pytest.mark.skipif(PLUGIN, reason="JAX's CUDA packages are installed")
def test_cuda_that_is_not_installed_gets_its_sentence_quickly():
    done = command_line.qhat(*TRAIN, "--device", "cuda")
    assert done.returncode == 2
    assert "--device cuda needs JAX's CUDA packages, which are not installed" in done.stderr
    assert "[cuda]'" in done.stderr
    with pytest.raises(UsageError, match="device='cuda' needs JAX's CUDA packages"):
        TrainConfig.of("CartPole-v1", device="cuda").validate()


def test_a_word_that_is_no_device_is_one_sentence_in_the_shell():
    done = command_line.qhat(*TRAIN, "--device", "cdua")
    assert done.returncode == 2
    assert done.stderr == "qhat: --device is 'cdua'; expected auto, cpu or cuda. Did you mean 'cuda'?\n"


def test_the_processor_by_name_has_a_device_per_seed():
    script = "from qhat.system.devices import prepare\nprepare(2, device='cpu')\nimport jax\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}print(len(jax.local_devices()))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "2\n"


def test_a_device_that_is_none_is_refused_before_jax_is_imported():
    script = """
import sys
from qhat.system.devices import require_device
from qhat.system.errors import UsageError
try:
    require_device("cdua")
except UsageError as error:
    print(error)
print("jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "device is 'cdua'; expected auto, cpu or cuda." in done.stdout
    assert "Did you mean 'cuda'?" in done.stdout
    assert done.stdout.endswith("False\n")


def test_cuda_without_a_gpu_gets_its_sentence(monkeypatch: pytest.MonkeyPatch):
    """The packages are there and the driver is not: JAX's own error is several lines."""

    def none() -> bool:
        raise RuntimeError("Unable to initialize backend 'cuda'\nmore")

    monkeypatch.setattr(devices, "require_device", lambda device: None)
    monkeypatch.setattr(devices, "on_cpu", none)
    before = getattr(jax.config, "jax_platforms")  # noqa: B009  (JAX declares it at run time)
    try:
        with pytest.raises(UsageError, match=r"finds none here \(Unable to initialize backend 'cuda'\)"):
            devices._choose("cuda")
    finally:
        jax.config.update("jax_platforms", before)


def test_a_process_that_computes_on_another_device_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "on_cpu", lambda: False)
    before = getattr(jax.config, "jax_platforms")  # noqa: B009  (JAX declares it at run time)
    try:
        with pytest.raises(UsageError, match="device is cpu, but this process already computes on cuda"):
            devices._choose("cpu")
    finally:
        jax.config.update("jax_platforms", before)


def test_memory_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch):
    assert host_memory.free_bytes() is None, "the tests run on the processor"
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 2**30)
    with pytest.raises(UsageError, match=r"needs 2.0 GiB, but 1.0 GiB are free on the GPU; buy one\."):
        host_memory.require_memory(2**31, "It", "buy one")


@pytest.mark.skipif(
    not GPUS, reason="no GPU that JAX could use: nvidia-smi or JAX's CUDA packages are absent"
)
@pytest.mark.parametrize("env", ["CartPole-v1", "Pong-v5", "gym:CartPole-v1"])
def test_a_gpu_trains_saves_and_is_named(env: str, tmp_path: Path):
    words = ["train", env, "--device", "cuda", "--steps", "500", "--learning-starts", "100"]
    words += ["--replay-capacity", "1000", "--eval-episodes", "1", "--run-dir", str(tmp_path / "run")]
    done = command_line.qhat(*words)
    assert done.returncode == 0, done.stderr
    assert "JAX computed with NVIDIA" in (tmp_path / "run" / "README.md").read_text()
