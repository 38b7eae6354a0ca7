"""Frames per second of PQN by its authors' program, in MinAtar's Breakout. Prints one JSON object.

It runs the program unchanged, from a checkout, without the evaluations in between:

    git clone https://github.com/mttga/purejaxql
    python -m venv purejaxql/.venv
    purejaxql/.venv/bin/pip install jax==0.4.38 flax optax chex gymnax==0.0.6 six hydra-core wandb \
        safetensors
    XLA_FLAGS=--xla_cpu_multi_thread_eigen=false taskset -c 1 \
        purejaxql/.venv/bin/python benchmarks/peers/purejaxql_pqn.py purejaxql
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import jax
import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--frames", type=int, default=163_840)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = options.checkout / "purejaxql"
    sys.path.insert(0, str(folder))
    program = importlib.import_module("pqn_minatar")
    config = yaml.safe_load((folder / "config" / "alg" / "pqn_minatar.yaml").read_text())
    config |= {"ENV_NAME": "Breakout-MinAtar", "WANDB_MODE": "disabled", "TEST_DURING_TRAINING": False}
    config["TOTAL_TIMESTEPS_DECAY"] = float(config["TOTAL_TIMESTEPS_DECAY"])
    config["TOTAL_TIMESTEPS"] = options.frames
    key = jax.random.split(jax.random.PRNGKey(0), 1)[0]
    train = jax.jit(program.make_train(config)).lower(key).compile()
    jax.block_until_ready(train(key))
    wall, cpu = [], []
    for _ in range(options.repeats):
        began, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(train(key))
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    print(json.dumps({"frames": options.frames, "wall": wall, "cpu": cpu}))


if __name__ == "__main__":
    main()
