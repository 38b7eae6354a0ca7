"""Draws without loops are JAX's draws."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from qhat.system.threefry import draw_without_loops, encrypt

# Counter, key and result of Random123's known answers for 20 rounds.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]
DRAWS = """
import sys, jax, jax.numpy as jnp
if sys.argv[1] == "without":
    from qhat.system.devices import prepare
    prepare(1)
key = jax.random.fold_in(jax.random.key(7), 123456789)
keys = jax.random.split(key, (2, 3))
draws = [
    jax.random.key_data(keys), jax.random.bits(key, (3, 5)), jax.random.bits(key, (), "uint8"),
    jax.random.bits(key, (7,), "uint16"), jax.random.uniform(key, (33,)), jax.random.normal(key, (5, 2)),
    jax.random.randint(key, (9,), -3, 1000), jax.random.permutation(key, 12),
    jax.vmap(lambda each: jax.random.normal(each, (4,)))(keys[0]),
    jax.random.bits(jax.random.PRNGKey(3), (2,)),
]
text = jax.jit(lambda key: jax.random.normal(key, (32,))).lower(key).compile().as_text()
print(" while(" in text, [each.tolist() for each in draws])
"""


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_known_answers(counter, key, answer):
    words = [np.array([word], np.uint32) for word in (*key, *counter)]
    with np.errstate(over="ignore"):
        assert [int(word[0]) for word in encrypt(*words)] == list(answer)


def test_every_draw_is_that_of_jax_and_has_no_loop():
    """In two processes, as a process compiles draws in one way."""

    def drawn(how: str) -> tuple[bool, str]:
        run = subprocess.run(
            [sys.executable, "-c", DRAWS, how], capture_output=True, text=True, check=True, timeout=300
        )
        loops, _, draws = run.stdout.partition(" ")
        return loops == "True", draws

    (looped, usual), (loops, ours) = drawn("usual"), drawn("without")
    assert looped, "JAX compiles draws without loops by itself now: system/threefry.py can go"
    assert not loops
    assert ours == usual


def test_registering_again_changes_nothing():
    key = jax.random.key(0)
    before = jax.random.bits(key, (4,))
    draw_without_loops()
    assert (jax.random.bits(key, (4,)) == before).all()
