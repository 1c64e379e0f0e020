"""Fonts of this machine for the letters of any script, for pictures that text is drawn into."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from cwerm.terminal import console

__all__ = ["default_font", "fonts_for", "is_shaped", "runs"]

EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def default_font() -> str:
    """matplotlib's own, which has Latin, Greek, Cyrillic, Hebrew and Arabic letters."""
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


def fonts_for(texts: Iterable[str], where: str) -> list[str]:
    """Files of fonts that have all letters of the texts between them, the default one first.

    What none of this machine's fonts has is told in a line that names the picture ``where``, and the remedy.
    """
    texts = [*texts]
    wanted = {letter for text in texts for letter in text if _is_drawn(letter)}
    found = [default_font()]
    missing = wanted - _letters(found[0])
    for path in _others() if missing else []:
        if has := missing & _letters(path):
            found.append(path)
            missing -= has
        if not missing:
            break
    if missing:
        _tell(missing, texts, where)
    return found


def runs(text: str, fonts: list[str]) -> list[tuple[str, str]]:
    """The text cut where the font changes, each piece with a font that has its letters, if any has."""
    pieces: list[tuple[str, str]] = []
    for letter in text:
        last = pieces[-1][1] if pieces else fonts[0]
        stays = not _is_drawn(letter) or ord(letter) in _charmap(last)
        font = last if stays else next((f for f in fonts if ord(letter) in _charmap(f)), last)
        if pieces and font == last:
            pieces[-1] = (pieces[-1][0] + letter, font)
        else:
            pieces.append((letter, font))
    return pieces


def is_shaped(text: str) -> bool:
    """Whether letters run from right to left or join, which takes more than one glyph after another."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter) == "Mc"
        for letter in text
    )


def _tell(missing: set[str], texts: list[str], where: str) -> None:
    names = [unicodedata.name(letter, "") for letter in missing]
    east = any(name.startswith(EAST_ASIAN) for name in names)
    others = not all(name.startswith(EAST_ASIAN) for name in names)
    packages = ["fonts-noto-cjk"] * east + ["fonts-noto-core"] * others
    first = next(text for text in texts if missing & {*text})
    console.note(
        f"{where}: no font of this machine has the letters of '{first}', boxes stand for them; install some, "
        f"such as apt install {' '.join(packages)}"
    )


def _is_drawn(letter: str) -> bool:
    return unicodedata.category(letter) not in ("Cc", "Cf", "Zs", "Zl", "Zp")


def _letters(path: str) -> set[str]:
    return {chr(code) for code in _charmap(path)}


@functools.cache
def _charmap(path: str) -> frozenset[int]:
    """Codes of the letters that a font has; none of a file that is no font."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@functools.cache
def _others() -> list[str]:
    """The other fonts of this machine, upright ones without serifs first; found anew by each process."""
    from matplotlib.font_manager import findSystemFonts

    def plain(path: str) -> tuple[bool, bool, str]:
        name = Path(path).stem.lower()
        odd = any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black"))
        return odd, "sans" not in name or "mono" in name, path

    return sorted(findSystemFonts(), key=plain)
