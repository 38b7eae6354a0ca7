"""Spreads the seeds of a run over a Ray cluster: groups of seeds train as tasks, one run folder results."""
