"""The page's JavaScript: modules on a server, joined to one script where no import can reach the others."""

import re
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = sorted(path.name for path in HERE.glob("*.js"))
IMPORT = re.compile(r'^import [^;]+ from "\./(.+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?!default )", re.MULTILINE)


def joined(name: str) -> str:
    """A module with all that it imports, imported ones first; they share one scope, so top-level names are unique."""
    scripts: dict[str, str] = {}

    def add(name: str) -> None:
        text = (HERE / name).read_text(encoding="utf-8")
        for other in IMPORT.findall(text):
            if other not in scripts:
                add(other)
        scripts[name] = EXPORT.sub("", IMPORT.sub("", text))

    add(name)
    return "\n".join(scripts.values())
