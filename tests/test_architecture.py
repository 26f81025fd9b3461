"""The house holds the shape that the page design.md gives it: layers, rooms, line budgets.

Read from the syntax trees, so nothing is imported. Every budget is a ratchet: where a number falls, lower it in the
page; no commit raises one.
"""

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "rscir_lib"
DESIGN = LIBRARY.parent / "notebooks" / "book" / "design.md"


def table(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the page, without its two header lines."""
    section = DESIGN.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


FACES = ("__init__", "patterncom", "workbook", "__main__")  # short names for what lies in a room
LEVEL = {room: int(level) for level, rooms in table("Layers") for room in rooms.split(", ")}
LEVEL |= dict.fromkeys(FACES, max(LEVEL.values()) + 1)
BUDGETS = {name: int(number.replace(",", "")) for name, number in table("Budgets")}
# what a query passes through
SPINE = (
    "archive/", "benchmarks/base.py", "benchmarks/patterncom.py", "similarity/", "methods/base.py",
    "methods/pairwise.py", "features/features.py", "ranking/", "evaluation/", "search/searcher.py", "encoders/base.py",
)  # fmt: skip


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def name_of(path: Path) -> str:
    return path.relative_to(LIBRARY).as_posix()


SOURCES = sorted(
    path for path in LIBRARY.rglob("*") if path.suffix in (".py", ".js", ".css", ".html") and "vendor" not in path.parts
)
MODULES = {name_of(path).removesuffix(".py"): path for path in SOURCES if path.suffix == ".py"}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split("/")[0]


def imported(module: str) -> Iterator[tuple[str, int]]:
    """Modules of the library that one imports, and the line; lazy and type-only imports count too."""
    for node in ast.walk(TREES[module]):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rscir_lib":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{module}.py:{node.lineno}: write the whole name of the module instead of a relative import")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "rscir_lib"]
        for name in names:
            parts = name.split(".")[1:]
            for end in (len(parts), len(parts) - 1):
                path = "/".join(parts[:end])
                if path in MODULES or f"{path}/__init__" in MODULES:
                    yield (path if path in MODULES else f"{path}/__init__"), node.lineno
                    break


def test_the_page_says_what_each_room_holds():
    rooms = [name.strip("`") for name, _ in table("Rooms")]
    assert sorted(rooms) == sorted(LEVEL.keys() - set(FACES))


def test_every_module_has_a_room():
    rooms = {room_of(module) for module in MODULES}
    print(f"{len(rooms)} rooms: {', '.join(sorted(rooms))}")
    assert rooms <= LEVEL.keys(), f"no layer in design.md for {sorted(rooms - LEVEL.keys())}"
    assert len(rooms) <= 20


def test_nothing_is_imported_upward():
    wrong = []
    for module in MODULES:
        for other, line in imported(module):
            here, there = room_of(module), room_of(other)
            if here != there and LEVEL[there] >= LEVEL[here]:
                wrong.append(f"{module}.py:{line} imports {other}, which lies above or beside it")
    assert not wrong, "\n".join(wrong)


def test_no_circle():
    """Neither between modules nor between rooms."""
    arrows = defaultdict(set)
    for module in MODULES:
        for other, _ in imported(module):
            if other != module and not (module.endswith("__init__") or other.endswith("__init__")):
                arrows[module].add(other)
    left = {module: set(others) for module, others in arrows.items()}
    while free := [module for module in left if not any(other in left for other in left[module])]:
        for module in free:
            del left[module]
    assert not left, f"imports go in a circle through {', '.join(sorted(left))}"


def functions() -> Iterator[tuple[int, str]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.end_lineno - node.lineno + 1, f"{module}.py:{node.lineno} {node.name}"


def test_functions_and_files_are_short_enough_to_read():
    longest = sorted(functions(), reverse=True)
    too_long = [f"{name}: {length} lines" for length, name in longest if length > BUDGETS["function"]]
    too_long += [f"{name_of(path)}: {lines(path)} lines" for path in SOURCES if lines(path) > BUDGETS["file"]]
    print("longest functions:", *(f"  {length:4} {name}" for length, name in longest[:9]), sep="\n")
    assert not too_long, "\n".join(too_long)


def test_the_library_stays_thin():
    by_room = defaultdict(int)
    for path in SOURCES:
        by_room[room_of(name_of(path).removesuffix(path.suffix))] += lines(path)
    outside = sum(count for room, count in by_room.items() if room != "apps")
    spine = sum(lines(path) for path in SOURCES if name_of(path).startswith(SPINE))
    counts = {"everything": sum(by_room.values()), "outside apps": outside, "spine": spine}
    for name, count in itertools.chain(sorted(by_room.items()), counts.items()):
        print(f"{count:6,} {name}")
    assert all(count <= BUDGETS[name] for name, count in counts.items()), f"lines {counts}, at most {BUDGETS}"


# calls that write a file in another way than `storage/atomic`, which is whole or not at all
WRITES = {"write_text", "write_bytes", "copy", "copy2", "copyfile", "copytree", "savefig", "to_csv", "to_parquet"}
WRITES |= {"savez", "savetxt", "to_json", "to_pickle"}
# and why some may: module and call
MAY = {
    ("storage/locks", "write_text"): "a note for people; the lock holds without it",
    ("storage/downloads", "open"): "a part, which is renamed once it is whole",
    ("explorer/session", "write_bytes"): "an upload, read at once and thrown away",
    ("analysis/cost", "write_text"): "a switch of the system's, no file",
    ("teaching/course", "copytree"): "pages, copied again each time",
}


def written(module: str) -> Iterator[tuple[str, int]]:
    """Calls that write a file themselves, and their lines; what stands inside `write_file(...)` fills its stream."""
    tree = TREES[module]
    inside = {
        id(node)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("write_file", "write_text")
        for node in ast.walk(call)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in inside or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        owner = getattr(getattr(node.func, "value", None), "id", "")
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        modes = [text for text in texts if re.fullmatch(r"[rwaxbt+]{1,3}", text)]
        if isinstance(node.func, ast.Name):
            if name == "open" and any(set(mode) & set("wax+") for mode in modes):
                yield name, node.lineno
        elif (
            (
                name in WRITES
                and (not name.startswith("to_") or node.args)
                and (owner in ("shutil", "np", "nbformat") or name not in ("copy", "savez"))
            )
            or (name == "open" and any(set(mode) & set("wax+") for mode in modes))
            or (name == "write" and owner == "nbformat")
            or (
                name == "save"
                and owner in ("np", "Image", "card", "image")
                and not isinstance(node.args[0], ast.NamedExpr)
            )
        ):
            yield name, node.lineno


def test_every_file_is_written_whole():
    used = set()
    for module in sorted(MODULES.keys() - {"storage/atomic"}):
        for name, line in written(module):
            reason = next((key for key in MAY if module.endswith(key[0]) and name.startswith(key[1])), None)
            assert reason, f"{module}.py:{line} writes by {name}: use storage/atomic, so that a kill leaves no half"
            used.add(reason)
    assert used == MAY.keys(), "remove what nobody does any more"
