"""Environments: a batch of E, behind one contract."""
