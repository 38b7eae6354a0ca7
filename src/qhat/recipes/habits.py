"""What other libraries call the settings of qhat: one table, for the command line and for Python."""

from __future__ import annotations

import re
from typing import NamedTuple


class Habit(NamedTuple):
    """What qhat calls something that another library has."""

    ours: str
    """The setting, as Python spells it; '' if there is none."""
    value: str = ""
    """An example of its value; '' for a switch."""
    names: tuple[str, ...] = ()
    """What others call it, in lower case and with underscores."""
    note: str = ""
    """What differs, if more than the name does."""
    keeps: bool = True
    """Whether the value that was typed means the same for qhat, or for the last key of the example."""


def _part(ours: str, value: str, names: str, note: str = "") -> Habit:
    return Habit(ours, value, tuple(names.split()), note, keeps=False)


def _key(ours: str, value: str, names: str) -> Habit:
    return Habit(ours, value, tuple(names.split()))


def _name(ours: str, value: str, names: str) -> Habit:
    return Habit(ours, value, tuple(names.split()))


HABITS = (
    _name("learning_rate", "0.0005", "lr step_size learning_rate_init adam_lr q_lr"),
    _name(
        "steps",
        "100000",
        "total_timesteps timesteps num_timesteps n_timesteps total_steps max_steps num_steps"
        " training_steps max_timesteps",
    ),
    _part(
        "steps",
        "100000",
        "episodes num_episodes n_episodes max_episodes epochs num_epochs iterations",
        "a run's length counts environment steps, not episodes",
    ),
    _name(
        "replay_capacity",
        "100000",
        "buffer_size memory_size replay_size buffer_capacity memory_capacity replay_buffer_size"
        " replay_memory_size capacity maxlen buffer_limit",
    ),
    _name("num_envs", "8", "n_envs num_environments envs nenvs"),
    _name("gamma", "0.99", "discount discount_factor discount_rate"),
    _name("batch_size", "32", "batch minibatch_size minibatch mini_batch_size train_batch_size"),
    _name("seeds", "5", "n_seeds num_seeds nseeds runs num_runs"),
    _name("threads", "2", "n_jobs num_threads n_threads nthreads num_cpus n_cpus cores num_cores cpus"),
    _name("seed", "100", "random_seed manual_seed"),
    _name("n_step", "3", "nstep n_steps n_step_returns multi_step num_step_returns"),
    _name("eval_every", "5000", "eval_freq eval_frequency eval_interval evaluation_interval"),
    _name("eval_episodes", "20", "n_eval_episodes num_eval_episodes"),
    _name("save_every", "50000", "save_freq save_frequency checkpoint_freq checkpoint_interval"),
    _name("max_gradient_norm", "10", "max_grad_norm grad_clip clip_grad gradient_clip grad_norm_clip"),
    _name(
        "learning_starts",
        "1000",
        "learning_start start_steps start_timesteps warmup_steps min_replay_size burn_in"
        " replay_start_size",
    ),
    _name("recipe", "rainbow", "algo algorithm agent agent_class method model"),
    _name(
        "hidden",
        "64 64",
        "net_arch hidden_sizes hidden_size hidden_dim hidden_dims hidden_units hidden_layers"
        " fcnet_hiddens layers units",
    ),
    _part("layer_norm", "", "layernorm use_layer_norm use_layernorm"),
    _name("random_shift", "4", "augmentation augment data_augmentation random_crop drq"),
    _name("mirror", "true", "symmetry symmetry_augmentation use_symmetry mirror_augmentation"),
    _part("normalise", "", "normalize normalize_observations norm_obs"),
    _name("optimiser", "adam", "optimizer"),
    _name("env_kwargs", "gravity=-5.0", "env_args environment_kwargs make_kwargs"),
    _name(
        "run_dir",
        "runs/mine",
        "log_dir logdir log_path save_path save_dir output_dir outdir out output model_dir exp_dir",
    ),
    _name("init_from", "runs/mine", "load load_path load_model pretrained weights"),
    _part(
        "explore",
        "epsilon:steps=10000",
        "epsilon_decay eps_decay epsilon_decay_rate exploration_decay decay_rate",
        "ε falls on a line over environment steps, not by a factor",
    ),
    _key("explore", "epsilon:steps=10000", "epsilon_decay_steps eps_decay_steps exploration_steps"),
    _key(
        "explore", "epsilon:fraction=0.1", "exploration_fraction eps_fraction epsilon_fraction"
    ),
    _key(
        "explore",
        "epsilon:end=0.05",
        "eps_end epsilon_end end_e end_epsilon eps_min epsilon_min min_epsilon min_eps final_epsilon"
        " epsilon_final exploration_final_eps",
    ),
    _key(
        "explore",
        "epsilon:start=1.0",
        "epsilon eps eps_start epsilon_start start_e start_epsilon initial_epsilon epsilon_max max_epsilon"
        " exploration_initial_eps",
    ),
    _part("merge", "dueling", "dueling use_dueling dueling_dqn is_dueling duel dueling_network"),
    _part("policy", "double", "double use_double double_q double_dqn ddqn is_double use_ddqn"),
    _part(
        "sampler",
        "prioritised",
        "prioritized prioritised use_per per use_prioritized prioritized_replay prioritised_replay"
        " prioritized_experience_replay prioritized_replay_buffer",
    ),
    _key("sampler", "prioritised:alpha=0.6", "alpha per_alpha prioritized_replay_alpha"),
    _key("sampler", "prioritised:beta=0.4", "beta per_beta beta_start prioritized_replay_beta beta0"),
    _part("dense", "noisy", "noisy use_noisy noisy_net noisy_nets noisynet noisy_networks"),
    _part("head", "categorical", "c51 use_c51 distributional use_distributional categorical"),
    _key("head", "categorical:atoms=51", "num_atoms n_atoms atoms atom_size"),
    _part("head", "categorical:v_min=-10,v_max=10", "v_min v_max vmin vmax"),
    _part("head", "quantile", "qr_dqn use_qr num_quantiles n_quantiles quantiles"),
    _part("bonus", "munchausen", "munchausen use_munchausen"),
    _key("target", "soft:tau=0.005", "tau polyak soft_update soft_update_tau target_tau"),
    _part(
        "target",
        "hard:every=250",
        "target_update_interval target_update target_update_freq target_update_frequency update_target"
        " target_network_frequency target_network_update_freq update_target_every sync_every",
        "it counts gradient updates",
    ),
    _part(
        "replay_ratio",
        "0.5",
        "gradient_steps train_freq train_frequency utd utd_ratio update_every update_freq update_frequency"
        " num_updates train_every training_freq",
        "it counts gradient updates per environment step",
    ),
    _key("wrap", "frame_stack:count=4", "frame_stack num_stack n_stack framestack stack"),
    _part("tensorboard", "", "tensorboard_log use_tensorboard tb_log"),
    _part("track", "wandb", "wandb use_wandb track_wandb wandb_project wandb_project_name with_wandb"),
    _part("track", "mlflow", "mlflow use_mlflow mlflow_uri"),
    _name("env", "CartPole-v1", "env env_id env_name environment gym_id task game env_type"),
    _part("device", "cuda", "cuda gpu use_cuda use_gpu accelerator platform"),
    _name(
        "stop_at",
        "475",
        "reward_threshold stop_reward target_reward target_score solved_score early_stop early_stopping"
        " stop_score stop_on_reward",
    ),
    _part("log", "info.distance", "info_keywords info_keys log_info extra_metrics monitor_info"),
    Habit(
        "",
        names=("callback", "callbacks", "callback_list", "on_evaluation", "eval_callback", "on_eval"),
        note="qhat.train(env, callback=f) calls f with a qhat.Evaluation after each evaluation of the run,"
        " and f stops the run by returning True",
    ),
    Habit(
        "",
        names=("render", "render_mode", "record_video", "capture_video", "render_human"),
        note="training shows no picture; qhat play RUN films a trained policy",
    ),
)  # fmt: skip
"""Every habit; a name occurs once."""
_BY_NAME = {name: habit for habit in HABITS for name in habit.names}
SB3_POLICY = re.compile(r"(mlp|cnn|multiinput)(lstm)?policy", re.IGNORECASE)
"""Names of networks in Stable-Baselines3, where `policy` is the network."""
TYPABLE = re.compile(r"[\w.:/=+-]{1,40}", re.ASCII)
"""A value that is repeated as it was typed."""
NUMBER = re.compile(r"[0-9.e_+-]{1,20}")


def ours_of(name: str) -> str:
    """Return the setting of qhat for what another library calls `name`; '' if there is none."""
    habit = _BY_NAME.get(_plain(name))
    return habit.ours if habit else ""


def our_word(name: str, value: object = None, command: str = "") -> str:
    """Return the sentence that names qhat's setting for what others call `name`; '' for an unknown name.

    Args:
        name: as it was typed: `lr` in Python, `--lr` in a shell.
        value: what was typed with it.
        command: the command line's command, for example `qhat train`. Default: the words of Python.
    """
    shown = str(value) if value is not None and not isinstance(value, bool) else ""
    plain = _plain(name)
    if plain == "policy" and SB3_POLICY.fullmatch(shown):
        flag, widths = ("--policy", "--hidden 64 64") if command else ("policy", "hidden=(64, 64)")
        return (
            f"qhat chooses the network by the observation, so leave '{shown}' out ({widths} sets its"
            f" widths); {flag} is how the next action is chosen in the target: greedy, double, softmax."
        )
    habit = _BY_NAME.get(plain)
    if habit is None:
        return ""
    if not habit.ours:
        return f"qhat has no setting {name}: {habit.note}."
    example = _example(habit, shown)
    because = f" ({habit.note})" if habit.note else ""
    if habit.ours == "env":
        typed = f"{command} {example}" if command else f'qhat.train("{example}")'
        return f"qhat takes the environment without {name}: {typed}."
    if command:
        flag = "--" + habit.ours.replace("_", "-")
        return f"qhat's word for {name} is {flag}{because}: {command} ... {flag} {example}".rstrip() + "."
    return f"qhat's word for {name} is {habit.ours}{because}: {habit.ours}={_in_python(habit, example)}."


def _example(habit: Habit, shown: str) -> str:
    """Return the value that was typed, where it means the same for qhat; otherwise the example."""
    before, equals, _ = habit.value.rpartition("=")
    if not habit.keeps or not TYPABLE.fullmatch(shown):
        return habit.value
    if not equals or habit.ours == "env_kwargs":
        return shown
    return f"{before}={shown}" if NUMBER.fullmatch(shown) else habit.value


def _plain(name: str) -> str:
    """Return the name in lower case, with underscores, also for `bufferSize`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.lstrip("-"))
    return snake.replace("-", "_").lower()


def _in_python(habit: Habit, example: str) -> str:
    """Write an example as Python has it."""
    if habit.ours == "hidden":
        return "(64, 64)"
    if habit.ours == "env_kwargs":
        return '{"gravity": -5.0}'
    if habit.ours == "wrap":
        return "(qhat.environments.wrappers.FrameStack(4),)"
    if not habit.value:
        return "True"
    try:
        float(example)
    except ValueError:
        return f'"{example}"'
    return example
