"""Training on several machines, on Ray: actors with environments around one learner."""
