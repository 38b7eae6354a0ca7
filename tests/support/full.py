"""Tests that only `make test-full` runs: they are long, and similar to a test that every commit runs."""

import os
from collections.abc import Mapping
from types import MappingProxyType

FULL = bool(os.environ.get("QHAT_FULL"))

LONG: Mapping[str, str] = MappingProxyType(
    {
        "test_encoders.py::test_an_agent_learns_with_it[impala:pool=2,spectral=true]": "[impoola]",
        "test_probes.py::test_recipe_solves_the_probes[simba]": "[simba2]",
        "test_probes.py::test_recipe_solves_the_probes[bro]": "[simba2]",
        "test_killed_learner.py::test_a_killed_learner_leaves_no_actor_and_a_run_that_resumes[local]": (
            "[the same cluster]"
        ),
        "test_export_memory.py::test_the_robots_node_keeps_a_state_from_goal_to_goal"
        "[min_gru:units=6,length=4,burn_in=2]": "[gru:units=5,length=4,burn_in=2]",
        "test_recurrent.py::test_errors_are_those_of_whole_episodes[gru-3]": "[gru-1]",
        "test_recurrent.py::test_other_parts_learn_with_a_memory[calibrated]": "[rainbow]",
        "test_streaming.py::test_a_resumed_run_has_the_bits_of_the_whole_one[]": "[gymnasium:]",
        "test_sensors.py::test_a_student_sees_the_robots_group": "test_distil.py",
        "test_atari.py::test_ale_through_gymnasium_trains_on_single_stored_frames": "test_frames.py",
        "test_atari.py::test_both_loops_train_and_judge_atari": "the game there",
        "test_bins.py::test_dm_control_on_the_host": "the others there",
        "test_cli.py::test_a_run_stopped_before_evaluating_resumes_to_one": "test_newcomer.py",
        "test_envpool.py::test_a_run_trains_stops_goes_on_and_is_judged_by_gymnasium": "test_host.py",
        "test_export.py::test_every_backend_rolls_out[TurtleBot3-v0-dqn]": "test_web.py",
        "test_faults.py::test_an_environment_that_raises_leaves_a_checkpoint[async-1]": "[sync-20]",
        "test_guard.py::test_a_stopped_seed_stays_stopped_until_skip_is_set": "the others there",
        "test_guard.py::test_the_host_loop_has_the_same_guard[async]": "[sync]",
        "test_guard.py::test_when_every_seed_has_stopped_the_run_ends_with_a_checkpoint": "one of several",
        "test_host.py::test_how_a_run_is_cut_does_not_change_it": "test_training.py",
        "test_hosted.py::test_a_call_that_is_cut_short_loses_nothing[async]": "[sync]",
        "test_hosted.py::test_an_environment_that_runs_jax_within_its_step": "the others there",
        "test_hosted.py::test_repeated_actions_keep_what_was_reached": "test_wrappers.py",
        "test_masks.py::test_a_training_run_takes_and_believes_in_legal_actions_alone[1]": "[3]",
        "test_memory.py::test_the_forecast_is_within_a_twentieth[Breakout-MinAtar-settings1-recipe1]": (
            "[0]"
        ),
        "test_normalise.py::test_a_resumed_run_equals_one_that_never_stopped_and_a_warm_start_goes_on": (
            "test_resume.py"
        ),
        "test_reliability.py::test_two_runs_of_one_process_do_not_share_a_folder_either": "two processes",
        "test_resume.py::test_a_run_is_the_same_wherever_it_is_split[m_iqn]": "[rainbow] and [bdq]",
        "test_resume.py::test_a_run_is_the_same_wherever_it_is_split[qhat]": "[rainbow] and [bdq]",
        "test_resume.py::test_where_episodes_cannot_be_saved_others_begin_and_always_the_same"
        "[envpool:CartPole-v1]": "[gym:CartPole-v1]",
        "test_signals.py::test_a_checkpoint_within_seconds_though_a_call_takes_minutes[15-143]": "[2-130]",
        "test_training.py::test_a_resumed_run_equals_one_that_never_stopped[categorical]": "test_resume.py",
        "test_training.py::test_a_warm_start_keeps_the_support_that_its_weights_mean": "the other one",
        "test_training.py::test_cartpole_is_learned_and_judged_by_gymnasium": "make smoke",
        "test_training.py::test_other_environments_run[Breakout-MinAtar]": "test_minatar.py",
        "test_video.py::test_every_backend_can_be_filmed[TurtleBot3-v0-options0]": "the films there",
        "test_wrappers.py::test_an_option_that_the_reference_does_not_know_is_scored_where_it_is_known": (
            "the others there"
        ),
        "test_wrappers.py::test_a_resumed_run_with_wrappers_equals_one_that_never_stopped": "test_resume",
        "test_wrappers.py::test_the_command_line_takes_them_and_a_resume_remembers_them": "the others",
        "test_wrappers.py::test_wrappers_on_the_other_backends_train_and_are_judged[LunarLander-v3]": (
            "the others there"
        ),
        "test_agent.py::test_an_agent_saved_before_streams_continues[True]": "[False]",
        "test_agent.py::test_a_loaded_agent_continues_bit_for_bit[chapter_rainbow_per]": "[qhat]",
        "test_bins.py::test_a_run_keeps_its_commands[Pendulum-v1]": "[gym:Pendulum-v1]",
        "test_contract.py::test_every_step_is_one_sample_and_the_true_one[('compiled', False)-7]": (
            "('compiled', True)"
        ),
        "test_contract.py::test_every_step_is_one_sample_and_the_true_one[('ours', 'async')-7]": (
            "('ours', 'sync')"
        ),
        "test_envpool.py::test_playgrounds_robots_step_in_the_compiled_loop[Go1JoystickFlatTerrain-v1]": (
            "the others"
        ),
        "test_envpool.py::test_playgrounds_robots_step_in_the_compiled_loop[LeapCubeReorient-v1]": (
            "the others"
        ),
        "test_host.py::test_a_gymnasium_run_trains_stops_goes_on_and_is_judged": (
            "test_resume.py [gym:CartPole-v1]"
        ),
        "test_public.py::test_types_are_known_outside_the_package[in_mypy]": "[in_pyright]",
        "test_public.py::test_checkers_find_every_mistake_of_a_user[in_mypy]": "[in_pyright]",
        "test_pieces.py::test_what_is_read_is_what_there_was[1]": "[3]",
        "test_probes.py::test_recipe_solves_the_probes[m_iqn]": "[qr_dqn] and test_compositions.py",
        "test_supports.py::test_a_support_follows_rewards_that_grow_a_hundredfold[hl_gauss]": (
            "[categorical]"
        ),
        "test_training.py::test_updates_per_environment_step_are_the_replay_ratio[4-0.125-13]": (
            "[4-1.0-104]"
        ),
        "test_web.py::test_the_pages_actions_are_pythons[qhat/TurtleBot3-v0]": "[CartPole-v1]",
    }
)
"""Tests that are skipped without QHAT_FULL=1, and what every commit runs that is near to each."""
