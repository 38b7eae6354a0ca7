"""The chapter's three functions: train on CartPole, evaluate, plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from qhat.chapter.agents import ChapterAgent, RainbowDQN
from qhat.reports.plot import draw_progress, require_format, write_figure
from qhat.runs.curves import Episodes, Evaluations
from qhat.system.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def train_dqn_robot_example(
    episodes: int = 1000, max_steps: int = 200, solved_threshold: float = 195.0, *, seed: int = 0
) -> tuple[RainbowDQN, list[float]]:
    """Train the chapter's `RainbowDQN` on CartPole-v1, in a loop as one writes it oneself.

    Args:
        episodes: training stops after so many.
        max_steps: an episode is cut after so many steps.
        solved_threshold: training stops when the last 100 episodes have this mean score.
        seed: of the agent and of the episodes.

    Returns:
        the agent, and the score of each episode.
    """
    for name, value in (("episodes", episodes), ("max_steps", max_steps)):
        require(value >= 1, f"{name} is {value!r}; expected 1 or more.")
    env = gymnasium.make("CartPole-v1")
    agent = RainbowDQN(4, 2, seed=seed)
    scores: list[float] = []
    print("Starting DQN training...")
    for episode in range(episodes):
        scores.append(_episode(env, agent, max_steps, seed if episode == 0 else None))
        mean = float(np.mean(scores[-100:]))
        if episode % 100 == 0:
            print(f"Episode {episode}, Average Score: {mean:.2f}, Epsilon: {agent.epsilon:.3f}")
        if len(scores) >= 100 and mean >= solved_threshold:
            print(f"Solved in {len(scores)} episodes! Average score: {mean:.2f}")
            break
    env.close()
    return agent, scores


def _episode(env: Any, agent: RainbowDQN, max_steps: int, seed: int | None) -> float:
    state, _ = env.reset(seed=seed)
    score = 0.0
    for step in range(max_steps):
        action = agent.act(state)
        next_state, reward, terminated, truncated, _ = env.step(action)
        cut = truncated or step == max_steps - 1
        agent.remember(state, action, reward, next_state, terminated, truncated=cut)
        agent.replay()
        # The chapter counts episodes here, so that its target network stays as it began.
        if agent.step_count % agent.target_update_freq == 0:
            agent.update_target_network()
        state, score = next_state, score + float(reward)
        if terminated or truncated:
            break
    return score


def evaluate_agent(
    agent: ChapterAgent, env_name: str, num_episodes: int = 10, *, seed: int = 0
) -> list[float]:
    """Play episodes without exploration, and return their scores.

    Args:
        agent: an agent of `qhat.chapter`.
        env_name: an id of Gymnasium.
        num_episodes: how many episodes.
        seed: of the first episode; the next one has the next seed.
    """
    require(num_episodes >= 1, f"num_episodes is {num_episodes!r}; expected 1 or more.")
    env = gymnasium.make(env_name)
    scores = []
    for episode in range(num_episodes):
        state, _ = env.reset(seed=seed + episode)
        score, over = 0.0, False
        while not over:
            state, reward, terminated, truncated, _ = env.step(agent.act(state, training=False))
            score, over = score + float(reward), terminated or truncated
        scores.append(score)
    env.close()
    return scores


def plot_training_progress(
    scores: Sequence[float], window: int = 100, path: str | Path | None = "training_progress.png"
) -> Figure:
    """Draw the scores with their moving average, and the distribution of the last 100.

    Args:
        scores: of the episodes, in order.
        window: episodes of the moving average; the first episodes average fewer.
        path: the file to write (.png, .svg or .pdf). None: no file.

    Returns:
        Matplotlib's figure. No window opens.
    """
    out = None if path is None else require_format(path)
    values = np.asarray(scores, np.float64)
    require(values.ndim == 1 and values.size > 0, "scores is empty; expected one score for each episode.")
    count = np.arange(1, values.size + 1)
    none = Evaluations(np.zeros(0), np.zeros((1, 0)))
    figure = draw_progress([Episodes(count, values, count)], none, "Training progress", window)
    figure.axes[0].set_xlabel("Episode")
    if out is not None:
        print(f"Wrote {write_figure(figure, out)}")
    return figure
