"""Texts as cells of a CSV file that a spreadsheet opens: what begins like a formula there would be run as one."""

import re

FORMULA = r"(?='*[=+\-@\t\r\n])"


def as_cell(value: object) -> object:
    """A text with an apostrophe in front where it begins like a formula, so that it is shown; else the value itself."""
    return re.sub(f"^{FORMULA}", "'", value) if isinstance(value, str) else value


def from_cell(cell: str) -> str:
    """The text of which `as_cell` made a cell."""
    return re.sub(f"^'{FORMULA}", "", cell)
