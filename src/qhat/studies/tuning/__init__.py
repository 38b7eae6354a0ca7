"""The search for an environment's settings, and their comparison with the defaults on fresh seeds."""
