"""A simulated robot with a real lidar's readings never touches an object if it could have stopped.

Protects people, furniture and the robot from a near-stop that is blind where it matters. Every commit
drives 100 worlds for 7 s, QHAT_FULL=1 500 for 30 s; `python tests/support/lidar_worlds.py 500`
says how it went.
"""

from functools import partial

from full import FULL
from lidar_worlds import driver_of, drives

WORLDS, SECONDS = (500, 30.0) if FULL else (100, 7.0)


def test_no_contact_where_a_stop_was_possible():
    results = drives(driver_of, WORLDS, SECONDS)
    contacts = [(seed, result.contact) for seed, result in enumerate(results) if result.contact is not None]
    assert contacts == []
    # It is no answer to stand.
    assert sum(result.way for result in results) > 0.2 * 0.15 * SECONDS * WORLDS
    assert sum(result.stops for result in results) > WORLDS / 2
    assert sum(result.resumed for result in results) > WORLDS / 4, "turns away, and drives on"


def test_the_worlds_show_what_a_blind_robot_touches():
    results = drives(partial(driver_of, stop_distance=-1.0), 12, 8.0)
    assert sum(result.contact is not None for result in results) >= 4
