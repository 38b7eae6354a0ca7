"""What bounds one compiled loop on CartPole-v1: `roofline.py` runs this once for each column of its table.

Measures the loop of a recipe of qhat_throughput.py, its parts in loops of their own, and what this
machine takes for the same operations, products and bytes. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

import qhat.engine.loop
from qhat.axes.sumtree import FAN_OUT
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay import ring as replay
from qhat.engine.state import Clock, TrainState
from qhat.environments.make import make_any
from qhat.runs.threads import threads_for
from qhat.system import devices
from qhat_throughput import VARIANTS
from roofline_parts import Product, example, parts_of, products_of
from roofline_text import executed

CALL, ROUNDS, WARMUP, CHAIN, WIDE = 1_000, 11, 1_500, 64, 256
TRIAL, LONGEST, DRAWS = 20, 0.1, 256
Part = Callable[[Clock, Any], Any]
"""One turn of a measured loop: the state of one seed before and after it."""


def unchanged(clock: Clock, state: Any) -> Any:
    """The loop that does nothing."""
    return state


@dataclasses.dataclass(frozen=True)
class PartLoop(Loop):
    """Runs one part of an iteration, compiled and spread over seeds and devices as the whole is."""

    part: Part = unchanged

    def _run(self, clock: Clock, seed: Any, count: Any, longest: int) -> Any:
        def body(_: Any, carry: tuple[Clock, Any]) -> tuple[Clock, Any]:
            clock, state = carry
            return self.program.tick(clock), self.part(clock, state)

        return jax.lax.fori_loop(0, count, body, (clock, seed))[1], jnp.zeros(1)


def compile_with_text(loop: Loop, state: TrainState) -> tuple[Callable[..., Any], str]:
    """Compile a loop for a state; also return XLA's text of the compiled program."""
    programs: list[Any] = []
    original = qhat.engine.loop.compiled

    def keep(*arguments: Any, **options: Any) -> Any:
        programs.append(original(*arguments, **options))
        return programs[-1]

    with mock.patch.object(qhat.engine.loop, "compiled", keep):
        advance = loop.compile(CALL, like=state)
    return advance, programs[0].call.as_text()


def measure(loop: Loop, state: TrainState, warmup: int = 0) -> tuple[float, Counter[str], TrainState]:
    """Return the fewest microseconds of an iteration, its operations by kind, and the last state."""
    advance, text = compile_with_text(loop, state)
    turns = TRIAL
    for done in range(0, warmup, CALL):
        state, _ = advance(state, min(CALL, warmup - done))
    times: list[float] = []
    for _ in range(1 + ROUNDS):
        jax.block_until_ready(state)
        start = time.perf_counter()
        state, _ = advance(state, turns)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - start) / turns)
        # A loop of slow turns gets fewer of them.
        turns = max(TRIAL, min(CALL, int(LONGEST / times[0])))
    return min(times[1:]) * 1e6, executed(text), state


def keeping(function: Callable[..., tuple[Any, Any]]) -> Part:
    """Turn a part into a loop's turn. The state keeps its results: else XLA would leave them out."""

    def part(clock: Clock, state: Any) -> Any:
        seed, given, _ = state
        starred = jax.random.fold_in(seed.key, clock.iterations)
        seed, results = function(clock, seed, given, starred)
        return seed, given, results

    return part


def square(clock: Clock, state: tuple[Any, Any]) -> tuple[Any, Any]:
    """Do one large product, which is its next operand."""
    return state[0] @ state[1], state[1]


def stream(clock: Clock, state: tuple[Any, Any]) -> tuple[Any, Any]:
    """Read two vectors and write one."""
    return 0.5 * state[0] + 0.5 * state[1], state[1]


def chain(clock: Clock, x: Any) -> Any:
    """Do tiny operations, each of which needs the one before it and is not merged with it."""
    for _ in range(CHAIN):
        x = jax.lax.dynamic_update_slice(x, 0.5 * x[1:2], (clock.iterations % 4,))
    return x


def machine_rates(case: Case, products: list[Product], sizes: dict[str, int]) -> dict[str, float]:
    """Measure what one of the devices takes for operations, products and bytes; µs, GFLOP/s, GB/s."""
    each = case.seeds // case.devices
    empty, before = case.timed(unchanged, jnp.ones(16))
    took, operations = case.timed(chain, jnp.ones(16))
    rates = {"dispatch": (took - empty) / (operations.total() - before.total())}
    rates["flops"] = float(sum(product.flops for product in products))

    def turn(clock: Clock, state: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return [product.again(*pair) for product, pair in zip(products, state, strict=True)]

    took, _ = case.timed(turn, [product.operands() for product in products])
    rates["products"] = took - empty - len(products) * rates["dispatch"]
    took, _ = case.timed(square, (jnp.ones((WIDE, WIDE)), jnp.eye(WIDE)))
    rates["widest"] = 2 * WIDE**3 * each / took / 1e3
    for name, size in sizes.items():
        took, _ = case.timed(stream, (jnp.ones(size // 4), jnp.ones(size // 4)))
        rates[name] = 3 * size * each / took / 1e3
    return rates


class Case:
    """One recipe and number of seeds, on as many devices as the comparison with SB3 takes."""

    def __init__(self, variant: str, seeds: int):
        recipe, self.seeds = VARIANTS[variant], seeds
        self.devices = devices.dividing(seeds, devices.devices_for(seeds))
        devices.prepare(self.devices, threads=threads_for(recipe, pictures=False))
        self.environment: Any = make_any("CartPole-v1", 1, range(seeds), self.devices)
        spec = self.environment.spec
        self.program = Program.of(recipe, spec.shape, spec.dtype, spec.actions)

    def train(self) -> tuple[float, Counter[str], TrainState]:
        """Measure the whole loop."""
        loop = Loop(self.program, self.environment, self.devices)
        return measure(loop, loop.init(jax.random.split(jax.random.key(0), self.seeds)), WARMUP)

    def timed(self, part: Part, state: Any) -> tuple[float, Counter[str]]:
        """Measure a part that begins at the same `state` for every seed."""
        every: Any = jax.tree.map(lambda leaf: jnp.stack([leaf] * self.seeds), state)
        start = TrainState(Clock(jnp.int32(WARMUP), jnp.int32(0)), every)
        return measure(PartLoop(self.program, self.environment, self.devices, part), start)[:2]

    def parts(self, state: TrainState) -> dict[str, float]:
        """Measure every part, begun at the state of a training."""
        example_of = functools.partial(example, self.program, self.environment, state.clock)
        given = jax.jit(jax.vmap(example_of))(state.seeds)
        rows = {}
        for name, function in parts_of(self.program, self.environment).items():
            loop = PartLoop(self.program, self.environment, self.devices, keeping(function))
            copied = jax.tree.map(jnp.copy, state)

            def results(seed: Any, given: Any, function: Any = function) -> Any:
                return function(state.clock, seed, given, seed.key)[1]

            empty = jax.tree.map(jnp.zeros_like, jax.jit(jax.vmap(results))(state.seeds, given))
            carry: Any = (copied.seeds, jax.tree.map(jnp.copy, given), empty)
            rows[name] = measure(loop, TrainState(copied.clock, carry))[0]
        return rows

    def products(self, state: TrainState) -> list[Product]:
        """Return every product of one iteration of one seed."""
        seed = jax.tree.map(lambda leaf: leaf[0], state.seeds)
        given, found = example(self.program, self.environment, state.clock, seed), []
        for name, function in parts_of(self.program, self.environment).items():
            if name != "target":
                found += products_of(jax.make_jaxpr(function)(state.clock, seed, given, seed.key).jaxpr)
        return found

    def redrawn(self, state: TrainState) -> float:
        """Return the share of first draws that have an unusable transition, at the end of a training."""
        recipe = self.program.recipe

        def one(key: Any, seed: Any) -> Any:
            ring, sampler = seed.ring, recipe.sampler
            slots, _ = sampler.draw(seed.sampler, key, recipe.batch_size, ring.filled, ring.rows)
            return ~replay.view(ring, slots, recipe.n_step, recipe.gamma).complete.all()

        every = jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(None, 0))
        return float(jax.jit(every)(jax.random.split(jax.random.key(1), DRAWS), state.seeds).mean())

    def sizes(self, state: TrainState) -> dict[str, int]:
        """Return the bytes of one seed's learner, replay and sampler."""
        seeds = state.seeds
        trees = {"learner": seeds.learner, "replay": (seeds.ring, seeds.sampler)}
        return {
            name: sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) // self.seeds
            for name, tree in trees.items()
        }

    def touched(self, state: TrainState) -> dict[str, int]:
        """Return the bytes of one seed that an update reads and writes, if each is touched one time.

        The learner is read and written whole. Of replay, a row for every transition and its successor's
        observation; of a sum tree, one node of each level for every draw and for every new priority.
        """
        batch, ring = self.program.recipe.batch_size, state.seeds.ring
        row = sum(each.nbytes for each in (ring.observation, ring.observation, ring.action, ring.reward))
        levels = len([leaf for leaf in jax.tree.leaves(state.seeds.sampler) if leaf.ndim > 1])
        return {
            "learner": 2 * self.sizes(state)["learner"],
            "replay": batch * (row // ring.kind.size + 1 + 2 * levels * 4 * FAN_OUT),
        }


def main() -> None:
    """Measure one case; print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=sorted(VARIANTS), required=True)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    case = Case(args.variant, args.seeds)
    whole, operations, state = case.train()
    sizes = case.sizes(state)
    found: dict[str, Any] = {
        "seeds": args.seeds,
        "devices": case.devices,
        "whole": whole,
        "operations": operations,
        "redrawn": case.redrawn(state),
        "parts": case.parts(state),
        "touched": case.touched(state),
        "rates": machine_rates(case, case.products(state), sizes),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
