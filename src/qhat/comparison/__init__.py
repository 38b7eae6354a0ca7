"""Several runs side by side: what was compared, and how each recipe did. `qhat.report.compare` draws it."""
