"""Tables as Markdown, in the terminal and in HTML, and the one HTML page of a report."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cwerm.terminal import console

_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th { border-bottom: 2px solid #222 }
.text { text-align: left }
figure { margin: 1.5rem 0 } img { max-width: 100% } figcaption, .note { color: #555; font-size: 90% }
"""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first ``words`` columns are words, the others figures."""

    title: str
    header: list[str]
    rows: list[list[str]]
    words: int = 1


def markdown(table: Table) -> str:
    """The table as Markdown, under its title."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    marks = ["---"] * table.words + ["---:"] * (len(table.header) - table.words)
    return "\n".join([f"## {table.title}", "", line(table.header), line(marks),
                      *map(line, table.rows)])  # fmt: skip


def print_table(table: Table) -> None:
    """Print the table to the terminal."""
    import rich.table
    from rich.markup import escape

    made = rich.table.Table(title=escape(table.title), show_header=any(table.header))
    for place, name in enumerate(table.header):
        made.add_column(escape(name), justify="left" if place < table.words else "right")
    for row in table.rows:
        made.add_row(*map(escape, row))
    console.out.print(made)


def page(
    title: str, tables: Sequence[Table], pictures: Mapping[str, bytes], notes: Sequence[str]
) -> str:
    """The whole report in one file."""
    shown_figures = [
        f'<figure><img alt="{html.escape(caption)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(svg).decode()}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, svg in pictures.items()
    ]
    first, *rest = map(_html, tables)
    remarks = [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    body = "\n".join([first, *shown_figures, *rest, *remarks])
    name = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_CSS}</style></head>\n'
        f"<body><h1>{name}</h1>\n{body}\n</body>\n</html>\n"
    )


def _html(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        marked = [
            f"<{tag}{' class=text' if place < table.words else ''}>{html.escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(marked)}</tr>"

    head = f"<thead>{line(table.header, 'th')}</thead>" if any(table.header) else ""
    rows = "\n".join(line(row, "td") for row in table.rows)
    return f"<h2>{html.escape(table.title)}</h2>\n<table>{head}<tbody>\n{rows}\n</tbody></table>"
