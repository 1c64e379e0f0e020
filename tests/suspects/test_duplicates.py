"""Groups of images that are the same, also across training and test."""

from __future__ import annotations

import numpy as np

from cwerm.suspects.duplicates import Duplicate, groups_of, same_images
from cwerm.suspects.page import Contents, render


def test_groups_whose_labels_differ_come_first_then_those_across_splits() -> None:
    #                   training                 | test
    numbers = np.array([4, 7, 4, -1, 9, 7, 2, 2, 9, -1])
    labels = np.array([0, 1, 0, 3, 5, 2, 6, 6, 5, 0])
    groups = groups_of(numbers, labels, 8)
    assert [rows.tolist() for rows in groups] == [[1, 5], [4, 8], [0, 2], [6, 7]]
    assert [rows.tolist() for rows in groups_of(numbers, labels)] == [
        [1, 5],
        [0, 2],
        [4, 8],
        [6, 7],
    ]


def test_the_same_images_are_found_by_their_digests() -> None:
    random = np.random.default_rng(0)
    known = np.frombuffer(random.bytes(16 * 50), "V16")
    asked = np.concatenate([known[[7, 49]], np.frombuffer(random.bytes(32), "V16"), known[[7]]])
    assert same_images(known, asked).tolist() == [7, 49, -1, -1, 7]
    assert same_images(np.concatenate([known, known]), asked)[0] == 7
    assert same_images(known, known[:0]).tolist() == []


def test_a_test_image_is_shown_as_itself_and_not_as_the_training_image_of_its_number() -> None:
    rows = [
        Duplicate(1, "<b>a", 3, "training", "cat", True),
        Duplicate(1, "b", 3, "test", "dog", True),
    ]
    page = render(
        Contents("x", [], [], {3: b"one", "test-3": b"other"}, ["cat", "dog"], duplicates=rows)
    )
    assert 'data-id="3" alt="&lt;b&gt;a"' in page
    assert 'data-id="test-3" alt="b"' in page
    assert "<bdi>dog</bdi> (test)" in page
    assert '{"3": "b25l", "test-3": "b3RoZXI="}' in page
