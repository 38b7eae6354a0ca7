"""A trained qhat policy on a robot."""
