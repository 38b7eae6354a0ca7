"""Scores have enough digits, small ones too."""

import math

import pytest

from qhat.evaluation.statistics.text import score_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (475.23, "475.2"), (-199.4, "-199.4"), (9.31, "9.31"), (0.0473, "0.0473"), (-0.5, "-0.5"),
        (0.0, "0.0"),        (9.9999, "10.0"), (1.0, "1"), (math.nan, "–"), (None, "–"),
    ],
)  # fmt: skip
def test_digits(value: float | None, text: str) -> None:
    assert score_text(value) == text
