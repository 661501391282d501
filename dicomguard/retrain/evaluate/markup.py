"""A table of the page. Pure."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

# Class of a row, and its cells.
Row: TypeAlias = tuple[str, Sequence[str]]


def table(titles: Sequence[str], rows: Iterable[Row], *, text: int = 1, long: Iterable[int] = ()) -> str:
    """A table whose first `text` columns read from the left, and whose `long` ones may break."""
    wrapped = set(long)

    def kind(column: int) -> str:
        return ' class="long"' if column in wrapped else ' class="t"' if column < text else ""

    head = "".join(f'<th scope="col"{kind(i)}>{escape(title)}</th>' for i, title in enumerate(titles))
    body = "".join(
        f'<tr class="{name}">' + "".join(f"<td{kind(i)}>{escape(one)}</td>" for i, one in enumerate(cells)) + "</tr>"
        for name, cells in rows
    )
    return f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
