"""Fonts for the letters of any script, and what is said where there are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwerm.suspects import fonts
from cwerm.suspects.contact_sheet import TILE, contact_sheet
from cwerm.suspects.fonts import default_font, fonts_for, is_shaped, runs

STIX = default_font().replace(
    "DejaVuSans", "STIXGeneral"
)  # has mathematical letters that DejaVu lacks
ONLY_THERE = next(
    chr(code)
    for code in sorted(fonts._charmap(STIX) - fonts._charmap(default_font()))
    if chr(code).isalnum()
)


def test_the_default_font_is_enough_for_its_own_letters(capsys: pytest.CaptureFixture[str]) -> None:
    assert fonts_for(["Straße → Ёж", "قطة\n"], "x.png") == [default_font()]
    assert capsys.readouterr().out == ""


def test_another_font_is_taken_for_other_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_others", lambda: [__file__, default_font(), STIX])
    text = f"a {ONLY_THERE} b"
    found = fonts_for([text], "x.png")
    assert found == [default_font(), STIX]
    assert runs(text, found) == [("a ", default_font()), (f"{ONLY_THERE} b", STIX)]


def test_what_no_font_has_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "_others", lambda: [STIX])
    assert fonts_for(["cat", "自行车 हिन्दी"], "x.png") == [default_font()]
    said = " ".join(capsys.readouterr().out.split())
    assert "x.png: no font of this machine has the letters of '自行车 हिन्दी'" in said
    assert "apt install fonts-noto-cjk fonts-noto-core" in said


def test_scripts_that_are_shaped() -> None:
    assert is_shaped("قطة")
    assert is_shaped("बिल्ली")
    assert not is_shaped("Katze 自行车")


def test_long_captions_are_cut_off_at_their_image(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "white").save(buffer, format="PNG")
    sheet = contact_sheet([buffer.getvalue()], [("W" * 60, "قطة صغيرة جدا " * 9)])
    dark = np.asarray(sheet.convert("L")) < 128
    columns = np.flatnonzero(dark.any(axis=0))
    assert columns.min() > 0
    assert 8 + TILE / 2 < columns.max() <= 8 + TILE
