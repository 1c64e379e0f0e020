"""Images side by side, each with two lines of caption."""

from __future__ import annotations

from typing import Any

TILE, GAP, LINE = 112, 8, 14  # pixels: side of an image, between images, height of a caption's line
COLUMNS = 8


def contact_sheet(images: list[Any], captions: list[tuple[str, str]]) -> Any:
    """The images, row by row, each with two lines of caption below."""
    from PIL import Image, ImageDraw

    from cwerm.data.images import decode
    from cwerm.stages.pixels import to_square

    font = _font()
    columns = min(COLUMNS, len(images))
    step = TILE + GAP, TILE + 2 * LINE + GAP
    size = columns * step[0] + GAP, -(-len(images) // columns) * step[1] + GAP
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for position, (image, lines) in enumerate(zip(images, captions, strict=True)):
        left, top = (GAP + position % columns * step[0], GAP + position // columns * step[1])
        sheet.paste(Image.fromarray(to_square(decode(image), TILE)), (left, top))
        for line, text in enumerate(lines):
            place = (left, top + TILE + 1 + line * LINE)
            draw.text(place, _fitting(text, font), fill="black", font=font)
    return sheet


def _font() -> Any:
    """matplotlib's own font, which has more of the world's letters than Pillow's."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 11)


def _fitting(text: str, font: Any) -> str:
    """The text, cut off where it is wider than an image."""
    if font.getlength(text) <= TILE:
        return text
    while font.getlength(f"{text}…") > TILE:
        text = text[:-1]
    return f"{text}…"
