"""Labels to codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwerm.data import class_mapping
from cwerm.data.labels import normal


def encoded(
    values: Sequence[Any], names: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and the code of each value."""
    found, codes = class_mapping(values, names)
    return found, np.array([codes[normal(value)] for value in values], np.int32)


def test_text_is_sorted_naturally() -> None:
    names, codes = encoded(["class10", "class2", "b", "class2", "10", "2"])
    assert names == ["2", "10", "b", "class2", "class10"]
    assert codes.tolist() == [4, 3, 2, 3, 1, 0]
    assert codes.dtype == np.int32


def test_sparse_integers_become_contiguous_and_keep_their_names() -> None:
    names, codes = encoded([700, -3, 20, 700])
    assert names == ["-3", "20", "700"]
    assert codes.tolist() == [2, 0, 1, 2]


def test_the_sources_names_serve_integer_and_text_labels() -> None:
    own = ["shirt", "bag", "coat"]
    assert encoded([2, 0], own)[0] == own
    assert encoded([2, 0], own)[1].tolist() == [2, 0]
    assert encoded(["coat", "shirt"], own)[1].tolist() == [2, 0]


@pytest.mark.parametrize("label", [-1, 3, "hat"])
def test_label_outside_the_sources_names(label: int | str) -> None:
    with pytest.raises(ValueError, match=f"^label {label!r} is not among the source's 3 classes"):
        encoded([label], ["shirt", "bag", "coat"])


def test_composed_and_decomposed_letters_are_one_name() -> None:
    names, codes = encoded(["pa\u0302te\u0301", "soup", "p\xe2t\xe9"])
    assert names == ["p\xe2t\xe9", "soup"]
    assert codes.tolist() == [0, 1, 0]
    own = ["soup", "pa\u0302te\u0301"]
    assert encoded(["p\xe2t\xe9", "soup"], own)[1].tolist() == [1, 0]


def test_mixed_labels() -> None:
    with pytest.raises(ValueError, match=r"^labels mix text and integers"):
        encoded([1, "1"])


@given(st.one_of(st.lists(st.integers()), st.lists(st.text())), st.integers(1, 5))
def test_merged_pieces_equal_the_whole(labels: list[int] | list[str], pieces: int) -> None:
    union: set[int | str] = set()
    for piece in range(pieces):
        union |= set(labels[piece::pieces])
    names, mapping = class_mapping(union)
    whole_names, codes = encoded(labels)
    assert names == whole_names
    assert [mapping[normal(label)] for label in labels] == codes.tolist()
    assert [names[code] for code in codes] == [str(normal(label)) for label in labels]
    assert sorted(mapping.values()) == list(range(len(names)))
