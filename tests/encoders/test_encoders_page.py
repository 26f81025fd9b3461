"""The page *Encoders* says of each what `rscir encoders` says."""

import re
from pathlib import Path

from rscir_lib.apps.commands import cli
from rscir_lib.encoders import hub

PAGE = Path(__file__).parents[2] / "notebooks" / "book" / "encoders.md"
LISTED = [(name, key, one) for name, each in hub.PUBLISHED.items() for key, one in each.items()]


def row_of(name, architecture, one):
    """Its line of the page's table, without the last column, which is measured."""
    source = one.source.removeprefix("https://huggingface.co/")
    where = (
        f"[{source}]({one.source})"
        if "/" in one.repository
        else f"[elsewhere]({one.source})"
        if one.source
        else "its authors"
    )
    size = f"{one.size / 1e6:,.0f} MB" if one.size else ""
    doubt = f" (not verified: {one.unverified})" if one.unverified else ""
    return f"| `{name}` | {architecture} | {where} | {one.licence} | {one.activation}{doubt} | {size} |"


def test_every_entry_has_its_row_and_no_other(capsys):
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert lines == [row_of(*entry) for entry in LISTED]
    cli.list_encoders()
    said = capsys.readouterr().out
    for line, (name, architecture, one) in zip(lines, LISTED, strict=True):
        (listed,) = re.findall(rf"(?m)^{name} +{architecture} .*$", said)
        for fact in (one.licence, one.activation, one.source, f"{one.size / 1e6:,.0f} MB" if one.size else "?"):
            assert fact in listed
            assert fact in (line, "?") or fact in line
        assert (f"not verified: {one.unverified}" in listed) == bool(one.unverified)


def test_the_speeds_are_of_architectures_of_the_list():
    import sys

    sys.path.insert(0, str(PAGE.parents[2] / "tests" / "campaigns"))
    import encoders

    measured = re.findall(r"(?m)^\| ([\w.-]+) \| [\d,]+ MB \| [\d.]+ \|$", PAGE.read_text())
    assert set(measured) <= set(encoders.models())
    assert len(measured) >= 3
    assert "python tests/campaigns/encoders.py" in PAGE.read_text()
