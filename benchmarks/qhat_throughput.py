"""Steps per second of qhat's loops. Prints one JSON object."""

import argparse
import json
import time
from dataclasses import replace

from qhat.axes.dense import Noisy
from qhat.axes.explore import NoExploration
from qhat.axes.heads import Categorical, Quantile
from qhat.axes.merge import Dueling
from qhat.axes.policy import Double
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Hard
from qhat.axes.torso import MinAtar, Nature
from qhat.recipes.recipe import Recipe
from qhat.runs.threads import threads_for
from qhat.system.devices import devices_for, prepare

CHUNK = 10_000
"""Iterations per call of the compiled loop."""

# Spelled out, so that the work stays the same whatever the shipped recipes become.
BASE = Recipe(
    hidden=(64, 64),
    learning_rate=1e-3,
    batch_size=32,
    replay_ratio=1.0,
    replay_capacity=100_000,
    learning_starts=1_000,
    num_envs=1,
)
DOUBLE_CLIP = replace(BASE, policy=Double(), max_gradient_norm=10.0)
PONG = replace(
    BASE, torso=Nature(), hidden=(512,), learning_rate=1e-4, replay_ratio=0.25, replay_capacity=20_000,
    target=Hard(every=2_500),
)  # fmt: skip
VARIANTS: dict[str, Recipe] = {
    "dqn": BASE,
    "double": DOUBLE_CLIP,
    "per": replace(BASE, sampler=Prioritised()),
    "qr": replace(BASE, head=Quantile(quantiles=51)),
    "rainbow": replace(
        BASE,
        head=Categorical(v_min=0.0, v_max=100.0),
        policy=Double(),
        merge=Dueling(),
        dense=Noisy(),
        n_step=3,
        sampler=Prioritised(alpha=0.5),
        explore=NoExploration(),
    ),
    "chapter-rainbow": replace(DOUBLE_CLIP, merge=Dueling(), max_gradient_norm=1.0),
    "chapter-per": replace(DOUBLE_CLIP, sampler=Prioritised(), max_gradient_norm=1.0),
    "host": BASE,
    "lunarlander": replace(BASE, hidden=(256, 256), batch_size=128, num_envs=8, replay_ratio=0.25),
    "pong": PONG,
    "pong-8": replace(PONG, num_envs=8),
    "minatar": replace(
        BASE,
        torso=MinAtar(),
        hidden=(128,),
        replay_ratio=0.25,
        target=Hard(every=1_000),
        learning_starts=1_000,
    ),
}
ENVIRONMENTS = {
    "host": "gym:CartPole-v1",
    "lunarlander": "envpool:LunarLander-v3",
    "minatar": "gymnax:Breakout-MinAtar",
    "pong": "envpool:Pong-v5",
    "pong-8": "envpool:Pong-v5",
}
"""Where it is not the compiled CartPole-v1."""
PICTURES = {"pong", "pong-8"}


def measure(variant: str, seeds: int, devices: int, warmup: int, steps: int) -> dict[str, float]:
    """Train `seeds` seeds for `warmup` steps each, then time `steps` more of each."""
    import jax

    from qhat.engine.host import HostLoop
    from qhat.engine.iteration import Program
    from qhat.engine.loop import Loop
    from qhat.environments.host import HostEnvironment
    from qhat.environments.make import make_any

    recipe, env_id = VARIANTS[variant], ENVIRONMENTS.get(variant, "CartPole-v1")
    environment = make_any(env_id, recipe.num_envs, range(seeds), devices)
    spec = environment.spec
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions, stack=spec.stack)
    if isinstance(environment, HostEnvironment):
        loop = HostLoop(program, environment)
    else:
        loop = Loop(program, environment, devices)
    state = loop.init(jax.random.split(jax.random.key(0), seeds))
    run = loop.compile(CHUNK)
    # In two calls: whatever the first one's result brings about is over before the clock runs.
    warmup, steps = warmup // recipe.num_envs, steps // recipe.num_envs
    for part in (warmup // 2, warmup - warmup // 2):
        state, _ = run(state, part)
    updates = int(jax.block_until_ready(state).clock.updates)
    start = time.perf_counter()
    for done in range(0, steps, CHUNK):
        state, _ = run(state, min(CHUNK, steps - done))
    jax.block_until_ready(state)
    seconds = time.perf_counter() - start
    updates = int(state.clock.updates) - updates
    return {"steps": seeds * steps * recipe.num_envs, "updates": seeds * updates, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=50_000, help="per seed")
    options = parser.parse_args()
    most = devices_for(options.seeds)
    devices = max(d for d in range(1, most + 1) if options.seeds % d == 0)
    prepare(devices, threads=threads_for(VARIANTS[options.variant], options.variant in PICTURES))
    print(json.dumps(measure(options.variant, options.seeds, devices, options.warmup, options.steps)))


if __name__ == "__main__":
    main()
