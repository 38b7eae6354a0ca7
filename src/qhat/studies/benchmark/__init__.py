"""Suites of tasks trained over seeds, judged by fresh episodes, compared with published figures."""
