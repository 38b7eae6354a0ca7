"""A trained qhat policy that drives a TurtleBot3."""
