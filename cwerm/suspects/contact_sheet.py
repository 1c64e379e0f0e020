"""Images side by side, each with two lines of caption."""

from __future__ import annotations

import functools
from typing import Any

from cwerm.suspects.fonts import fonts_for, is_shaped, runs
from cwerm.terminal import console

TILE, GAP, LINE = 112, 8, 14  # pixels: side of an image, between images, height of a caption's line
COLUMNS, LETTERS = 8, 11


def contact_sheet(
    images: list[Any], captions: list[tuple[str, str]], where: str = "contact sheet"
) -> Any:
    """The images, row by row, each with two lines of caption below.

    Where this machine has no font for a caption, it is told that ``where`` has boxes there.
    """
    from PIL import Image, ImageDraw, features

    from cwerm.data.images import decode
    from cwerm.stages.pixels import to_square

    texts = [text for lines in captions for text in lines]
    fonts = fonts_for(texts, where)
    if any(map(is_shaped, texts)) and not features.check("raqm"):
        console.note(
            f"{where}: Pillow finds no FriBiDi here, so that letters of some scripts stand in a wrong order; "
            "install it, such as apt install libfribidi0"
        )
    columns = min(COLUMNS, len(images))
    step = TILE + GAP, TILE + 2 * LINE + GAP
    size = columns * step[0] + GAP, -(-len(images) // columns) * step[1] + GAP
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for position, (image, lines) in enumerate(zip(images, captions, strict=True)):
        left, top = (GAP + position % columns * step[0], GAP + position // columns * step[1])
        sheet.paste(Image.fromarray(to_square(decode(image), TILE)), (left, top))
        for line, text in enumerate(lines):
            across = float(left)
            # one baseline, whatever the font
            down = top + TILE + 1 + line * LINE + LETTERS
            for piece, font in runs(_fitting(text, fonts), fonts):
                place, own = (across, down), _font(font)
                draw.text(place, piece, fill="black", font=own, anchor="ls", direction=_direction())
                across += _length(piece, font)
    return sheet


@functools.cache
def _font(path: str) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(path, LETTERS)


def _width(text: str, fonts: list[str]) -> float:
    return sum(_length(piece, font) for piece, font in runs(text, fonts))


def _length(piece: str, font: str) -> float:
    return float(_font(font).getlength(piece, direction=_direction()))


def _direction() -> str | None:
    """That of a line, whatever that of the words in it."""
    from PIL import features

    return "ltr" if features.check("raqm") else None


def _fitting(text: str, fonts: list[str]) -> str:
    """The text, cut off where it is wider than an image."""
    if _width(text, fonts) <= TILE:
        return text
    while _width(f"{text}…", fonts) > TILE:
        text = text[:-1]
    return f"{text}…"
