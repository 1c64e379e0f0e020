"""Tables as Markdown, in the terminal and in HTML, and the one HTML page of a report."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader

from cwerm.terminal import console

NONE = "-"


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
        is_words = place < table.words
        # in a narrow terminal words are cut, and no figure
        figures = [] if is_words else [part for row in table.rows for part in row[place].split()]
        made.add_column(
            escape(name),
            justify="left" if is_words else "right",
            overflow="fold",
            no_wrap=place == 0,
            min_width=max(map(len, figures), default=None),
        )
    for row in table.rows:
        made.add_row(*map(escape, row))
    console.out.print(made)


def page(
    title: str, tables: Sequence[Table], pictures: Mapping[str, bytes], notes: Sequence[str]
) -> str:
    """The whole report in one file."""
    rooms = Environment(loader=PackageLoader("cwerm.reports", ""), autoescape=True)
    encoded = {caption: base64.b64encode(svg).decode() for caption, svg in pictures.items()}
    template = rooms.get_template("page.html.jinja")
    return template.render(title=title, tables=tables, pictures=encoded, notes=notes)
