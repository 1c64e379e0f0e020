from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cwerm.algorithms.exact_sums import ExactSums


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-1e30, 1e30))
)
def test_equals_fsum(rows: np.ndarray) -> None:
    sums = ExactSums((3,))
    for row in rows:
        sums.add(row)
    assert sums.total().tolist() == [math.fsum(column) for column in rows.T]


def test_nothing_is_zero() -> None:
    assert ExactSums((2, 3)).total().tolist() == np.zeros((2, 3)).tolist()
