"""The state of an agent. This is the one place where tests read what `Agent` does not offer to users."""

from typing import Any

import jax
import jax.numpy as jnp

from qhat.agent.agent import Agent
from qhat.engine.state import SeedState


def state_of(agent: Agent) -> SeedState:
    """Return the state of learning, after the rows that wait have moved to replay."""
    agent._finish()
    agent._writer.drain()
    # A copy: the next update writes into the agent's arrays.
    return jax.tree.map(jnp.copy, agent._seed())


def acting_weights(agent: Agent) -> Any:
    """Return the weights that `act` uses now."""
    return agent._learning.learner.online
