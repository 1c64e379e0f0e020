"""Which classes are taken for which, of few classes and of many."""

from __future__ import annotations

from cwerm.suspects.noise_matrix import noise_matrix


def test_of_few_classes_all_are_shown() -> None:
    found = noise_matrix(["a", "b", "c"], {("a", "b"): 3, ("c", "a"): 1}, {"a": 7, "b": 9})
    assert found.names == ["a", "b", "c"]
    assert found.counts == [[7, 3, 0], [0, 9, 0], [1, 0, None]]
    assert (found.largest, found.total, found.left_out) == (3, 4, 0)
    assert found.pairs == [("a", "b", 3), ("c", "a", 1)]


def test_of_many_classes_those_of_the_most_frequent_pairs_are_shown_in_their_order() -> None:
    names = [f"class {i}" for i in range(100)]
    frequent = {(names[90 - 2 * i], names[91 - 2 * i]): 5 for i in range(12)}
    rare = {("class 3", "class 4"): 1}
    found = noise_matrix(names, frequent | rare)
    assert found.names == sorted(found.names, key=names.index)
    assert {name for pair in frequent for name in pair} == {*found.names}, "25 at most"
    assert (found.num_classes, found.total, found.left_out) == (100, 61, 1)
    assert len(found.pairs) == 13
