"""Transitions that others took: from files into replay."""
