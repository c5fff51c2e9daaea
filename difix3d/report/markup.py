"""Small pieces of HTML."""

import html
from collections.abc import Iterable
from typing import Any


class Safe(str):
    """Text that is HTML already."""


def escape(value: Any) -> Safe:
    """Anything as text in a page; :class:`Safe` stays as it is."""
    return value if isinstance(value, Safe) else Safe(html.escape(str(value)))


def tag(name: str, *children: Any, **attributes: Any) -> Safe:
    """An element; attributes ``data_x`` become ``data-x``, ``class_`` becomes ``class``, ``None`` is left out."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Safe(f"<{name}{words}>{''.join(map(escape, children))}</{name}>")


def grid(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Safe:
    """A table."""
    first = tag("tr", *(tag("th", cell) for cell in head))
    return tag("table", tag("thead", first), tag("tbody", *(tag("tr", *(tag("td", c) for c in row)) for row in rows)))
