"""The page of suspects in a browser: what is shown, filtered, decided and saved."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import by_css, choose, saved, show_page
from PIL import Image

from cwerm.data.corrections import Correction
from cwerm.suspects.page import Contents, render
from cwerm.suspects.suspects import Suspect

MANY = 10_000
NAMES = ["cat", "<b>dog</b>", 'o"wl', "鳥"]


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96)).save(buffer, format="WEBP", quality=70)
    return buffer.getvalue()


def suspects(count: int) -> list[Suspect]:
    """Paths with markup and commas; the classes in turn."""
    return [
        Suspect(
            rank=i + 1,
            path=f"{NAMES[i % 4]}/<img src=x onerror=alert(1)>, {i}.png",
            id=2 * i,
            label=NAMES[i % 4],
            suggested=NAMES[(i + 1 + i // 4 % 3) % 4],
            quality=i / count,
            suggested_probability=1 - i / count,
            nearest_path=f"{NAMES[(i + 1) % 4]}/near-{i}.png",
            nearest_id=2 * i + 1,
        )
        for i in range(count)
    ]


def opened(browser: Any, tmp_path: Path, contents: Contents) -> float:
    """Open a page; the seconds it took. What was decided on the page before is not asked about."""
    path = tmp_path / "suspects.html"
    path.write_text(render(contents))
    return show_page(browser, path)


def contents(count: int, **more: Any) -> Contents:
    listed = suspects(count)
    pictures = {i: picture(i % 50) for s in listed for i in (s.id, s.nearest_id)}
    return Contents(
        "Labels of <i>here</i>", ["about 10% look wrong"], listed, pictures, NAMES, **more
    )


def test_what_is_ticked_is_what_the_next_run_reads(browser: Any, tmp_path: Path) -> None:
    listed = suspects(8)
    opened(browser, tmp_path, contents(8))
    cards = by_css(browser, ".card")
    assert not by_css(browser, "#save")[0].is_enabled(), "nothing is decided"
    by_css(browser, "[data-decision=confirmed]")[0].click()
    by_css(browser, "[data-decision=relabelled]")[1].click()
    by_css(browser, "[data-decision=removed]")[2].click()
    by_css(browser, "[data-decision=removed]")[3].click()
    by_css(browser, "[data-decision=removed]")[3].click()  # taken back
    other = by_css(browser, ".card select")[4]
    other.click()
    another = next(n for n in NAMES if n not in (listed[4].label, listed[4].suggested))
    choose(browser, ".card:nth-child(5) select", another)
    assert [("decided" in card.get_attribute("class")) for card in cards] == [
        1,
        1,
        1,
        0,
        1,
        0,
        0,
        0,
    ]
    assert by_css(browser, "#decided")[0].text == "4 decided here"
    found = saved(browser)
    assert [*found.rows.values()] == [
        Correction(listed[0].path, listed[0].label, "confirmed", ""),
        Correction(listed[1].path, listed[1].label, "relabelled", listed[1].suggested),
        Correction(listed[2].path, listed[2].label, "removed", ""),
        Correction(listed[4].path, listed[4].label, "relabelled", another),
    ]


def test_what_was_decided_before_is_saved_again(browser: Any, tmp_path: Path) -> None:
    before = [
        Correction('a "b", c.png', "cat", "relabelled", 'o"wl'),
        Correction("d", "cat", "removed", ""),
    ]
    opened(browser, tmp_path, contents(4, decided=before))
    by_css(browser, "[data-decision=confirmed]")[0].click()
    assert [*saved(browser).rows.values()][:2] == before
    assert len(saved(browser).rows) == 3


def test_names_are_text_and_nothing_runs(browser: Any, tmp_path: Path) -> None:
    opened(browser, tmp_path, contents(12))
    assert browser.title == "Labels of <i>here</i>"
    assert by_css(browser, ".path")[0].text.endswith("<img src=x onerror=alert(1)>, 0.png")
    assert not by_css(browser, "#cards b")
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.slow
def test_ten_thousand_suspects(browser: Any, tmp_path: Path, record_property: Any) -> None:
    """Only what is looked at is drawn: the page opens, filters and decides without a wait."""
    listed = suspects(MANY)
    seconds = {"open": opened(browser, tmp_path, contents(MANY))}
    assert by_css(browser, "#count")[0].text == "10,000 of 10,000"
    assert len(by_css(browser, ".card")) < 500

    def timed(name: str, what: Any) -> None:
        started = time.perf_counter()
        what()
        seconds[name] = time.perf_counter() - started

    timed("filter", lambda: choose(browser, "#given", NAMES[1]))
    count = sum(s.label == NAMES[1] for s in listed)
    assert by_css(browser, "#count")[0].text == f"{count:,} of 10,000"
    timed("decide all", by_css(browser, "#all-relabelled")[0].click)
    found = saved(browser)
    assert {row.path: row.new_label for row in found.rows.values()} == {
        s.path: s.suggested for s in listed if s.label == NAMES[1]
    }
    size = (tmp_path / "suspects.html").stat().st_size
    record_property("seconds", json.dumps(seconds))
    record_property("megabytes", size / 1e6)
    print(f"{size / 1e6:.1f} MB", seconds)  # noqa: T201
