"""Tables in a terminal, of text from anywhere."""

from rich.table import Table
from rich.text import Text

from .terminal import clean


def plain_table(*columns: str, header: bool = True) -> Table:
    """A table without lines. Add rows with `add_row`, below."""
    table = Table(box=None, pad_edge=False, show_header=header)
    for column in columns:
        table.add_column(column)
    return table


def add_row(table: Table, *cells: object, style: str | None = None) -> None:
    """Add cells as text; those that are `Text` already are taken as they are."""
    row = (cell if isinstance(cell, Text) else Text(clean(cell, lines=True)) for cell in cells)
    table.add_row(*row, style=style)
