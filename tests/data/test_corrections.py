"""Decisions of a person: what a file of them may hold, and what becomes of the labels."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwerm.data.corrections import DECISIONS, Correction, Corrections, check_paths
from cwerm.errors import UserError

NAMES = ["cat", "dog", "owl"]
PATHS = ["a.png", "b.png", "c, d.png", 'e".png']
LABELS = np.array([0, 1, 2, 0], np.int32)


def read(*lines: str, head: str = "path,label,decision,new_label") -> Corrections:
    return Corrections.read("\n".join([head, *lines]).encode())


def test_each_decision() -> None:
    decided = read("a.png,cat,confirmed,", "b.png,,relabelled,owl", '"c, d.png",owl,removed,')
    found, paths = decided.apply(PATHS, LABELS, NAMES)
    assert found.labels.tolist() == [0, 2, 2, 0]
    assert found.labels.dtype == np.int32
    assert found.known.tolist() == [True, True, False, False]
    assert found.removed.tolist() == [False, False, True, False]
    assert paths == {"a.png", "b.png", "c, d.png"}
    assert LABELS.tolist() == [0, 1, 2, 0], "what was given stays"


def test_a_list_of_suspects_can_be_filled_in() -> None:
    """Its other columns, and rows that nothing is decided on, are left alone."""
    head = "rank,path,id,label,suggested,decision"
    found = read("1,a.png,0,cat,dog,", "2,b.png,1,dog,cat,confirmed", head=head)
    assert list(found.rows) == ["b.png"]


def test_as_programs_for_tables_write_it() -> None:
    data = "\ufeffpath,decision,new_label\r\na.png,relabelled,dog\r\n".encode()
    assert Corrections.read(data).rows["a.png"].new_label == "dog"


def test_names_with_letters_that_can_be_written_in_two_ways() -> None:
    found, _ = read("a.png,,relabelled,cafe\u0301").apply(["a.png"], LABELS[:1], ["x", "caf\u00e9"])
    assert found.labels.tolist() == [1]


def test_the_digest_tells_decisions_not_files() -> None:
    first = read("a.png,cat,confirmed,", "b.png,,removed,")
    assert first.digest == read("a.png,cat,confirmed,dog", ",,,", "b.png,dog,removed,").digest
    assert first.digest != read("a.png,cat,removed,", "b.png,,removed,").digest
    assert read("a,,relabelled,b").digest != read("a,,relabelled,c").digest


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["a.png,,confirm,"], "line 2: unknown decision 'confirm'; did you mean 'confirmed'?"),
        (["a.png,,yes!,"], "choose one of confirmed, relabelled, removed"),
        (["a.png,,relabelled,"], "line 2: 'a.png' is relabelled, and new_label is empty"),
        ([",,removed,"], "line 2: has no path"),
        (["a.png,,removed,", "a.png,,confirmed,"], "line 3: decides on 'a.png' again"),
        (['"a.png,,removed,'], "unexpected end of data"),
    ],
)
def test_what_is_no_decision_is_told_by_its_line(lines: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        read(*lines)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "has no column 'path'"),
        (b"path,decison\n", "has no column 'decision'; did you mean 'decison'?"),
        (b"path,decision\na\xff,removed\n", "is no text in UTF-8"),
        (b"path,decision\n" + b"x" * 200_000 + b",removed\n", "field larger than field limit"),
        (b"\x00\x01PAR1", "column"),
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        Corrections.read(data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a.png,,relabelled,dgo", "'a.png' becomes 'dgo', which is no class; did you mean 'dog'?"),
        ("a.png,dog,confirmed,", "'a.png' was 'dog' when it was confirmed, and is 'cat' now"),
        ("b.png,cat,removed,", "'b.png' was 'cat' when it was removed, and is 'dog' now"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(line: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        read(line).apply(PATHS, LABELS, NAMES)


def test_a_path_of_two_images_decides_on_none() -> None:
    with pytest.raises(ValueError, match=r"'a\.png' names more than one image"):
        read("a.png,,removed,").apply(["a.png", "b.png", "a.png"], LABELS[:3], NAMES)


def test_unknown_paths_are_named() -> None:
    check_paths(set(), "data.corrections")
    with pytest.raises(
        UserError, match=r"data\.corrections: no image 'x' and 1 more in data\.source"
    ):
        check_paths({"y", "x"}, "data.corrections")


paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
rows = st.dictionaries(paths, st.tuples(st.sampled_from(DECISIONS), st.integers(0, 2)), max_size=8)


@given(rows)
def test_whatever_a_path_holds_it_comes_back(made: dict[str, tuple[str, int]]) -> None:
    """And the labels are those of a loop over the decisions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "decision", "new_label"])
    wanted = [
        Correction(p, "cat", d, NAMES[c] if d == "relabelled" else "") for p, (d, c) in made.items()
    ]
    writer.writerows([[row.path, row.label, row.decision, row.new_label] for row in wanted])
    found = Corrections.read(text.getvalue().encode())
    assert [*found.rows.values()] == wanted
    corrected, decided = found.apply([*made], np.zeros(len(made), np.int32), NAMES)
    assert decided == {*made}
    for row, (decision, code) in enumerate(made.values()):
        assert corrected.labels[row] == (code if decision == "relabelled" else 0)
        assert corrected.removed[row] == (decision == "removed")
        assert corrected.known[row] != corrected.removed[row]
