"""Several runs side by side: what was compared, and how each recipe did. compare.py draws it."""
