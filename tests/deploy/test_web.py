"""The page of `qhat export --web` in a real browser: Python's actions, and the environments' physics.

Protects against a page that shows another policy, or another world, than the one that was trained.
"""

import base64
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

import qhat.robots  # noqa: F401
from browser import Browser
from exported import exported_cartpole, exported_robot
from qhat.axes.actions import Actions
from qhat.axes.dense import Dense, Noisy
from qhat.axes.heads import Categorical, Expected, HLGauss, Implicit, Quantile
from qhat.axes.memory import GRU, MinGRU
from qhat.axes.merge import Dueling, Plain
from qhat.axes.torso import BroNet, SimBaV2
from qhat.cli.main import main
from qhat.deploy.web import KINDS, constants_of, require_drawable, write_page
from qhat.engine.calibration import STATISTICS
from qhat.engine.described import read_network
from qhat.engine.learner import Learner
from qhat.engine.replay.moments import Moments
from qhat.environments.turtlebot3 import physics as turtlebot3
from qhat.environments.turtlebot3.physics import TurtleBot3Options
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run
from qhat.system.errors import UsageError
from recalled import in_order

OBSERVATIONS = 1_000
NEAR = 1e-4
"""Two values that differ by less than this, of max(1, |Q|), may change places in float32."""
ENVIRONMENTS = {"CartPole-v1": exported_cartpole, "qhat/TurtleBot3-v0": exported_robot}


@pytest.fixture
def cartpole(browser: Browser) -> Browser:
    browser.open(exported_cartpole()[1] / "web.html")
    browser.run("qhat.app.play(false)")
    return browser


@pytest.fixture
def robot(browser: Browser) -> Browser:
    browser.open(exported_robot()[1] / "web.html")
    browser.run("qhat.app.play(false)")
    return browser


def observations_of(env_id: str, run: Run) -> np.ndarray:
    """Return observations of drives by the policy, with some random actions."""
    env, policy = gymnasium.make(env_id), run.policy()
    rng = np.random.default_rng(0)
    observations: list[Any] = []
    actions: Any = env.action_space
    observation, _ = env.reset(seed=0)
    while len(observations) < OBSERVATIONS:
        observations.append(observation)
        action = policy(observation) if rng.random() < 0.7 else int(rng.integers(actions.n))
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
    env.close()
    return np.asarray(observations, np.float32)


def assert_same(ours: np.ndarray, theirs: np.ndarray, actions: Any = None) -> None:
    """Compare Q `[N, C]` of Python and of the page, and the actions outside of near-ties."""
    size = np.maximum(1.0, np.abs(ours).max(axis=1))
    assert (np.abs(ours - theirs).max(axis=1) / size).max() < NEAR / 4
    ordered = np.sort(ours, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > NEAR * size
    assert clear.mean() > 0.9, "near-ties leave little to compare"
    chosen = theirs.argmax(axis=1) if actions is None else np.asarray(actions)
    np.testing.assert_array_equal(chosen[clear], ours.argmax(axis=1)[clear])


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_pages_actions_are_pythons(env_id: str, browser: Browser):
    run, folder = ENVIRONMENTS[env_id]()
    observations = observations_of(env_id, run)
    policy = run.policy()
    ours = np.stack([policy.q_values(one) for one in observations])
    browser.open(folder / "web.html")
    answers = browser.run(
        "return arguments[0].map(one => { const {q, action} = qhat.policy.act(one);"
        " return [Array.from(q), action]; })",
        observations.tolist(),
    )
    assert len(answers) == OBSERVATIONS
    assert_same(ours, np.array([q for q, _ in answers]), [action for _, action in answers])
    assert browser.complaints() == []


COMPOSITIONS = {
    "expected": {},
    "dueling, layer norm": {"merge": Dueling(), "layer_norm": True},
    "noisy, one layer": {"dense": Noisy(), "hidden": (16,)},
    "categorical": {"head": Categorical(atoms=21), "merge": Dueling()},
    "fixed support": {"head": Categorical(atoms=21, v_min=-4.0, v_max=9.0)},
    "histogram": {"head": HLGauss(atoms=21), "layer_norm": True},
    "quantiles": {"head": Quantile(quantiles=9), "dense": Noisy(), "merge": Dueling()},
    "implicit": {"head": Implicit(policy=8, embedding=8), "merge": Dueling(), "layer_norm": True},
    "normalised": {"normalise": True},
    "no hidden layer": {"hidden": ()},
    "shortcuts": {"hidden": (), "torso": BroNet(width=8)},
    "weights of length 1": {"hidden": (), "torso": SimBaV2(width=8)},
    "a gated memory": {"memory": GRU(units=6)},
    "a memory, dueling quantiles": {
        "memory": MinGRU(units=6),
        "head": Quantile(quantiles=9),
        "merge": Dueling(),
    },
}


def composed(
    browser: Browser, learner: Learner, parameters: Any, stack: Any, observations: Any
) -> np.ndarray:
    """Run a network in the open page, on one observation after the other."""
    exported = read_network(learner, parameters, "float32", stack)
    tensors = {name: np.ascontiguousarray(value) for name, value in exported.tensors.items()}
    return np.array(browser.run(
        "const bytes = Uint8Array.from(atob(arguments[1]), char => char.charCodeAt(0));"
        "const policy = new qhat.Policy({network: arguments[0], actions: {start: [0]}}, bytes);"
        "return arguments[2].map(one => Array.from(policy.act(one).q))",
        exported.ops, base64.b64encode(save(tensors)).decode(), observations.tolist(),
    ))  # fmt: skip


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_composition_runs_in_the_page(name: str, cartpole: Browser):
    recipe = dataclasses.replace(Recipe(hidden=(16, 16)), **COMPOSITIONS[name])
    learner = Learner.of(recipe, (6,), Actions((4,)))
    parameters = jax.tree.map(lambda leaf: 1.5 * leaf, learner.network.init(jax.random.key(3)))
    parameters |= {key: value for key, value in learner.init_parameters(jax.random.key(3)).items()
                   if key not in parameters}  # fmt: skip
    observations = np.random.default_rng(1).normal(0.0, 2.0, (200, 6)).astype(np.float32)
    if recipe.normalise:
        counted = jnp.ones(200, bool)
        parameters[STATISTICS] = Moments.empty((6,)).see(jnp.asarray(3 * observations + 1), counted)
    ours = in_order(learner, parameters, observations)[:, 0]
    assert_same(ours, composed(cartpole, learner, parameters, None, observations))


def test_the_list_of_compositions_has_every_part():
    used = [dataclasses.replace(Recipe(), **changes) for changes in COMPOSITIONS.values()]
    for axis, kinds in (
        ("head", (Expected, Categorical, HLGauss, Quantile, Implicit)),
        ("merge", (Plain, Dueling)),
        ("dense", (Dense, Noisy)),
    ):
        assert {type(getattr(recipe, axis)) for recipe in used} == set(kinds)


@pytest.mark.parametrize("fill", ["repeat", "zeros"])
def test_frames_are_stacked_in_the_page(fill: str, cartpole: Browser):
    learner = Learner.of(Recipe(hidden=(16, 16)), (3, 4), Actions((2,)))
    parameters = learner.init_parameters(jax.random.key(0))
    frames = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    before = [frames[0]] * 2 if fill == "repeat" else [np.zeros(4, np.float32)] * 2
    padded = np.concatenate([before, frames])
    stacks = np.stack([padded[at : at + 3] for at in range(30)])
    values = jax.jit(jax.vmap(learner.q_values, in_axes=(None, 0)))
    ours = np.asarray(values(parameters, jnp.asarray(stacks)))[:, 0]
    stack = {"op": "stack", "count": 3, "fill": fill, "shape": [3, 4]}
    assert_same(ours, composed(cartpole, learner, parameters, stack, frames))


def test_cartpole_is_gymnasiums(cartpole: Browser):
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=3)
    inner: Any = env
    start = inner.state.tolist()
    states: list[Any] = []
    actions: list[int] = []
    for step in range(300):
        x, speed, theta, omega = map(float, inner.state)
        # A hand-made controller holds the pole; now and then it errs.
        action = int(3 * theta + omega + 0.1 * x + 0.2 * speed > 0) ^ (step % 7 == 0)
        _, _, terminated, _, _ = env.step(action)
        assert not terminated, step
        states.append(inner.state.tolist())
        actions.append(action)
    steps = cartpole.run(
        "const it = qhat.environment; const [x, speed, theta, omega] = arguments[0];"
        "it.state = {x, speed, theta, omega}; it.push = 0;"
        "return arguments[1].map(action => { const end = it.step(action); const s = it.state;"
        " return [s.x, s.speed, s.theta, s.omega, end, Array.from(it.observe())]; })",
        start, actions,
    )  # fmt: skip
    np.testing.assert_allclose([one[:4] for one in steps], states, atol=1e-9)
    np.testing.assert_allclose([one[5] for one in steps], np.array(states, np.float32), atol=1e-6)
    assert {one[4] for one in steps} == {""}


def test_a_push_at_the_tip_is_newtons(cartpole: Browser):
    """Compared with a direct solution of the two equations of motion."""
    rng = np.random.default_rng(0)
    state = np.array([0.1, 0.0, 0.02, 0.0])
    wanted: list[Any] = []
    actions: list[Any] = []
    start = state.tolist()
    for _ in range(200):
        push, action = float(rng.uniform(-0.6, 0.6)), int(3 * state[2] + state[3] > 0)
        actions.append([push, action])
        _, speed, theta, omega = state
        sin, cos, half, pole, total = math.sin(theta), math.cos(theta), 0.5, 0.1, 1.1
        # Cart: all forces along the track. Pole: moments about its pivot; inertia 4/3·m·l².
        matrix = [[total, pole * half * cos], [pole * half * cos, 4 / 3 * pole * half**2]]
        force = (10.0 if action else -10.0) + push
        right = [
            force + pole * half * omega**2 * sin,
            pole * 9.8 * half * sin + push * 2 * half * cos,
        ]
        # Gymnasium's θ is clockwise, and so is its cosθ·ẍ term.
        acceleration, alpha = np.linalg.solve(matrix, right)
        state = state + 0.02 * np.array([speed, acceleration, omega, alpha])
        wanted.append(state.tolist())
    got = cartpole.run(
        "const it = qhat.environment; const [x, speed, theta, omega] = arguments[0];"
        "it.state = {x, speed, theta, omega};"
        "return arguments[1].map(([push, action]) => { it.push = push; it.step(action); const s = it.state;"
        " return [s.x, s.speed, s.theta, s.omega]; })",
        start, actions,
    )  # fmt: skip
    np.testing.assert_allclose(got, wanted, atol=1e-5)


HARD = {"arena": 8.0, "obstacles": 3, "obstacle_speed": 0.4, "actuation_delay": 1, "friction": 0.3}


@pytest.mark.parametrize("options", [{"arena": 8.0}, HARD], ids=["plain", "delay and friction"])
def test_the_arena_is_pythons(options: dict[str, Any], robot: Browser):
    settings = TurtleBot3Options(**options)
    advance = jax.jit(turtlebot3.advance, static_argnums=3)
    observe = jax.jit(turtlebot3.observe, static_argnums=2)
    state = jax.jit(turtlebot3.begin, static_argnums=1)(jax.random.key(5), settings)
    state = dataclasses.replace(state, place=jnp.zeros(2))
    first = as_page(state)
    states: list[Any] = []
    observations: list[Any] = []
    outcomes: list[Any] = []
    actions = np.random.default_rng(0).integers(5, size=300).tolist()
    for step, action in enumerate(actions):
        state, outcome = advance(state, jnp.int32(action), jax.random.key(step), settings)
        states.append(as_page(state))
        observations.append(np.asarray(observe(state, jax.random.key(0), settings)))
        outcomes.append((bool(outcome.collided), bool(outcome.reached)))
    got = robot.run(
        "const it = qhat.environment; it.state = arguments[0];"
        "it.options = {...it.options, ...arguments[1]};"
        "return arguments[2].map((action, i) => { it.state = it.advance(it.state, action);"
        " const outcome = [it.touches(it.state), it.distance() < it.near];"
        " it.state = {...it.state, goal: arguments[3][i].goal};"
        " return [it.state, Array.from(it.observe()), outcome]; })",
        first, dataclasses.asdict(settings), actions, states,
    )  # fmt: skip
    for (page, shown, (touches, near)), ours, observation, (collided, reached) in zip(
        got, states, observations, outcomes, strict=True
    ):
        for name in ("place", "cylinders", "velocities", "grip"):
            np.testing.assert_allclose(page[name], ours[name], atol=1e-5)
        assert abs(wrapped(page["facing"] - ours["facing"])) < 1e-5
        assert page["commands"] == ours["commands"]
        assert touches == collided
        assert (near and not touches) == reached
        distance = np.abs(np.asarray(shown) - observation)
        distance[24] = abs(wrapped(distance[24]))
        # A beam that grazes a cylinder takes the root of a rounding error.
        assert np.sort(distance)[-3] < 3e-5
        assert distance.max() < 0.02


def wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def as_page(state: Any) -> dict[str, Any]:
    names = ("place", "facing", "goal", "cylinders", "velocities", "commands", "grip")
    return {name: np.asarray(getattr(state, name)).tolist() for name in names}


def test_the_arena_begins_as_pythons_does(robot: Browser):
    """The page draws its places itself, by the same rules."""
    drawn = robot.run(
        "const it = qhat.environment;"
        "return Array.from({length: 200}, () => { it.reset(); return it.state; })"
    )
    options = TurtleBot3Options()
    for state in drawn:
        place, goal, cylinders = (np.array(state[name]) for name in ("place", "goal", "cylinders"))
        assert np.abs(place).max() <= options.arena / 2 - 2 * turtlebot3.RADIUS
        assert np.linalg.norm(goal - place) >= turtlebot3.CLEAR
        clear = turtlebot3.CLEAR + turtlebot3.RADIUS + options.obstacle_radius
        assert np.linalg.norm(cylinders - place, axis=1).min() >= clear
        assert np.linalg.norm(cylinders - goal, axis=1).min() > turtlebot3.RADIUS + options.obstacle_radius
    assert np.std([state["facing"] for state in drawn]) > 1
    constants = constants_of({"environment": {"id": "TurtleBot3-v0", "options": {"friction": 0.2}}})
    assert constants["options"]["friction"] == 0.2


def test_the_highest_q_is_marked_and_taken(robot: Browser):
    for _ in range(5):
        shown = robot.wait(
            "const done = arguments[0]; qhat.app.step();"
            "requestAnimationFrame(() => requestAnimationFrame(() => {"
            " const lines = [...document.querySelectorAll('#q li')];"
            " done([Array.from(qhat.app.q), lines.map(li => li.hasAttribute('aria-current')),"
            "  lines.map(li => getComputedStyle(li.querySelector('.mark')).visibility),"
            "  lines.map(li => li.querySelector('.value').textContent), qhat.app.over > 0]) }))"
        )
        q, marked, marks, values, over = shown
        best = [one == max(q) for one in q]
        assert over or marked == best
        assert [mark == "visible" for mark in marks] == marked
        assert values == [f"{one:.3f}".replace("-", "−") for one in q]


def test_play_step_reset_by_mouse_and_keys(cartpole: Browser):
    steps = "return qhat.environment.steps"
    cartpole.run("document.getElementById('reset').click()")
    assert cartpole.run(steps) == 0
    cartpole.run("document.getElementById('step').click()")
    cartpole.press("n")
    assert cartpole.run(steps) == 2
    cartpole.press("r")
    assert cartpole.run(steps) == 0
    cartpole.press(" ")
    assert cartpole.run("return document.getElementById('play').textContent") == "Pause"
    cartpole.wait("const done = arguments[0]; setTimeout(done, 300)")
    assert cartpole.run(steps) > 3
    cartpole.press(" ")
    stood = cartpole.run(steps)
    cartpole.wait("const done = arguments[0]; setTimeout(done, 100)")
    assert cartpole.run(steps) == stood
    assert cartpole.run("return document.getElementById('play').textContent") == "Play"


def test_speed_is_obeyed(cartpole: Browser):
    counts = cartpole.run(
        "const it = qhat.app; return [0.5, 1, 5].map(speed => { it.reset(); it.speed = speed;"
        " it.pass(0.09); return qhat.environment.steps; })"
    )
    assert counts == [2, 4, 22]


def test_the_slider_pushes_and_springs_back(cartpole: Browser):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    slider = cartpole.driver.find_element(By.ID, "push")
    drag = ActionChains(cartpole.driver).move_to_element_with_offset(slider, 80, 0).click_and_hold()
    drag.perform()
    push = cartpole.run("return qhat.environment.push")
    assert 0.1 < push <= 0.6
    assert cartpole.run("return document.getElementById('pushed').textContent") == f"{push:.2f} N"
    ActionChains(cartpole.driver).release().perform()
    assert cartpole.run("return qhat.environment.push") == 0
    cartpole.run("document.activeElement.blur()")
    ActionChains(cartpole.driver).key_down("\ue012").perform()
    assert cartpole.run("return qhat.environment.push") == -0.4
    ActionChains(cartpole.driver).key_up("\ue012").perform()
    assert cartpole.run("return qhat.environment.push") == 0


def test_a_click_sets_the_goal_and_keys_move_it(robot: Browser):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    scene = robot.driver.find_element(By.ID, "scene")
    width = scene.size["width"]
    ActionChains(robot.driver).move_to_element_with_offset(
        scene, width // 5, -width // 10
    ).click().perform()
    x, y = robot.run("return qhat.environment.state.goal")
    metres = 4.0 * 1.06 / width
    assert (x, y) == pytest.approx((width // 5 * metres, width // 10 * metres), abs=2 * metres)
    distance = robot.run("return Array.from(qhat.environment.observe()).slice(-1)")
    place = robot.run("return qhat.environment.state.place")
    assert distance[0] == pytest.approx(math.hypot(x - place[0], y - place[1]), abs=1e-5)
    robot.press("\ue013")
    assert robot.run("return qhat.environment.state.goal") == pytest.approx([x, y + 0.1])


def test_an_episodes_end_is_shown_and_the_next_begins(cartpole: Browser):
    cartpole.run("qhat.environment.state = {x: 0, speed: 0, theta: 0.25, omega: 2}; qhat.app.step()")
    assert "fell" in cartpole.run("return document.getElementById('event').textContent")
    cartpole.run("qhat.app.pass(2)")
    assert cartpole.run("return document.getElementById('event').textContent") == ""
    assert cartpole.run("return qhat.environment.steps") == 0


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_page_is_alone(env_id: str, browser: Browser):
    folder = ENVIRONMENTS[env_id]()[1]
    text = (folder / "web.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]|@[A-Z_]+@|src=|href=", text)
    browser.open(folder / "web.html")
    assert browser.complaints() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    blocked = browser.wait(
        "const done = arguments[0]; fetch('data:text/plain,x').then(() => done('loaded'), () => done('no'))"
    )
    assert blocked == "no"
    ran = browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.foreign = 1';"
        "document.body.append(script); return window.foreign === undefined"
    )
    assert ran
    assert any("Content Security Policy" in words for words in browser.complaints())


@pytest.mark.parametrize("width", [320, 390, 700, 1200])
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_it_fits_every_width(env_id: str, width: int, browser: Browser):
    browser.open(ENVIRONMENTS[env_id]()[1] / "web.html", width=width, dark=width == 390)
    wide = browser.run(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide[0] <= wide[1]
    small = browser.run(
        "return [...document.querySelectorAll('button, select, input')].filter(one => one.offsetParent)"
        ".filter(one => one.getBoundingClientRect().height < 40).map(one => one.id)"
    )
    assert small == [], "large enough for a finger"


def test_light_and_dark_are_detected_and_chosen(cartpole: Browser):
    back = "return getComputedStyle(document.body).backgroundColor"
    light = cartpole.run(back)
    cartpole.look(dark=True)
    dark = cartpole.run(back)
    assert light != dark
    cartpole.run("document.getElementById('theme').click()")
    assert cartpole.run(back) == light
    cartpole.look(dark=False)


def test_who_wants_less_motion_starts_it(browser: Browser):
    less = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.look()
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": less})
    browser.driver.get((exported_cartpole()[1] / "web.html").as_uri())
    browser.wait("const done = arguments[0]; setTimeout(done, 200)")
    assert browser.run("return [qhat.app.playing, qhat.environment.steps]") == [False, 0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("Acrobot-v1", {}, []), "web' draws CartPole-v1 and TurtleBot3-v0, .*'Acrobot-v1'"),
        (("gymnax:CartPole-v1", {"gravity": 20.0}, []), "gravity=20.0"),
        (("CartPole-v1", {}, [{"name": "action_repeat", "count": 2}]), "no wrap='action_repeat'"),
    ],
)  # fmt: skip
def test_unsupported_environments_are_refused(given: Any, says: str):
    with pytest.raises(UsageError, match=says):
        require_drawable(*given)


def test_supported_environments_are_accepted():
    for name in KINDS:
        require_drawable(name, {}, [{"name": "frame_stack", "count": 3}, {"name": "reward_scale"}])
    require_drawable("qhat:TurtleBot3-v0", {"arena": 6.0}, [])


def test_an_operation_that_it_lacks_is_named(tmp_path: Path):
    import json

    folder = exported_cartpole()[1]
    about = json.loads((folder / "policy.json").read_text())
    about["network"].insert(0, {"op": "convolution"})
    (tmp_path / "policy.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="cannot run the operation 'convolution'"):
        write_page(tmp_path)


def test_names_cannot_break_out_of_the_page(tmp_path: Path, browser: Browser):
    import json
    import shutil

    folder = exported_cartpole()[1]
    for name in ("weights.safetensors", "parity.json"):
        shutil.copy(folder / name, tmp_path / name)
    about = json.loads((folder / "policy.json").read_text())
    bad = "</script><script>window.foreign = 1</script><b>@SCRIPT@"
    about["name"] = about["source"]["recipe"] = about["source"]["run"] = bad
    (tmp_path / "policy.json").write_text(json.dumps(about))
    browser.open(write_page(tmp_path))
    assert browser.run("return [window.foreign === undefined, typeof qhat.app]") == [True, "object"]
    assert browser.run("return document.querySelectorAll('b').length") == 0
    assert browser.complaints() == []


def test_the_command_refuses_other_environments_before_jax(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = exported_cartpole()[0].folder.path
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--ros2", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "--ros2 writes the node of a TurtleBot3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
