"""Mutation testing: does a test fail when an operator or a number of the code is another one?

`make mutants` changes one place at a time in the rooms that decide what a number is worth, runs the tests that reach
the line, the quickest first, and lists the changes that no test noticed. Changes that alter nothing that can be seen
stand in `mutants_equivalent.tsv`, each with the reason. Messages, annotations and decorators are left alone, and
`strict=True`, which only guards. Random tests take few examples, always the same.

    python tests/campaigns/mutants.py                         every room of ROOMS
    python tests/campaigns/mutants.py ranking                 one, or one file, such as evaluation/metrics.py
    python tests/campaigns/mutants.py --sample 100 --seed 1   some of the changes, at random
"""

import argparse
import ast
import importlib
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}  # processes are forked, which threads would not survive

import hypothesis
import pytest
import torch
from tqdm import tqdm

PROJECT = Path(__file__).parents[2]
LIBRARY = PROJECT / "rscir_lib"
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.tsv")
# folders and files of `rscir_lib`; new files in a folder belong to it by themselves
ROOMS = (
    "similarity", "methods/base.py", "methods/pairwise.py", "methods/registry.py", "benchmarks/patterncom.py",
    "ranking", "evaluation",
)  # fmt: skip
TESTS = [
    f"tests/{name}"
    for name in (
        "similarity", "methods", "ranking", "evaluation", "search", "benchmarks/test_patterncom.py",
        "benchmarks/test_benchmark.py", "test_bad_input.py",
    )
    if (PROJECT / "tests" / name).exists()
]  # fmt: skip
COMPILED = re.compile(r"\bn?jit\b")  # in decorators of functions that are compiled: no trace sees their lines
ELSEWHERE = ("memory",)  # in the names of tests that run the library in another process, unchanged
EXAMPLES = 20
WANTED = 95  # per cent

SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass
class Mutant:
    """One change: the file in `rscir_lib`, the function it is in, what the place then reads, and where it was."""

    file: str
    function: str
    text: str
    line: int
    lines: range  # of the statement, or of a compound one's head
    tree: ast.Module

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.function, self.text


def changes(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    """What may be changed at a node, as functions that change it in a copy of the tree."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield lambda node, i=i, op=op: node.ops.__setitem__(i, SWAPPED[type(op)]())
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED:
        yield lambda node: setattr(node, "op", SWAPPED[type(node.op)]())
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda node: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield lambda node: setattr(node, "value", node.value + 1)
    elif isinstance(node, ast.UnaryOp):  # twice is not at all
        yield lambda node: setattr(node, "operand", ast.UnaryOp(node.op, node.operand))
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        if not isinstance(node.test, ast.Compare | ast.UnaryOp):  # which are turned round by themselves
            yield lambda node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, "strict"):
                yield lambda node, i=i: node.keywords.pop(i)


def places(node: ast.AST, function: str = "", statement: ast.stmt | None = None) -> Iterator[tuple]:
    """Every node that may be changed, with its function and statement."""
    if isinstance(node, ast.stmt):
        statement = node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".strip(".")
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    if isinstance(node, ast.FunctionDef) and any(COMPILED.search(ast.unparse(name)) for name in node.decorator_list):
        return
    yield node, function, statement
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise | ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from places(child, function, statement)


def reads(tree: ast.Module, node: ast.AST) -> str:
    """The code around a node, as much as fits a line."""
    parent = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    text = ast.unparse(node).splitlines()[0]
    while (node := parent.get(node)) and not isinstance(node, ast.FunctionDef | ast.Module):
        wider = ast.unparse(node)
        if "\n" in wider or len(wider) > 110:
            break
        text = wider
    return text


def files_of(names: Iterable[str]) -> list[str]:
    """The files that these are, or that lie in these folders, as paths in `rscir_lib`."""
    files = []
    for name in names:
        paths = [LIBRARY / name] if name.endswith(".py") else sorted((LIBRARY / name).rglob("*.py"))
        if not (paths and paths[0].is_file()):
            raise SystemExit(f"no room of rscir_lib: {name}")
        files += [path.relative_to(LIBRARY).as_posix() for path in paths]
    return list(dict.fromkeys(files))


def mutants(file: str) -> Iterator[Mutant]:
    source = (LIBRARY / file).read_text()
    for i, (node, function, statement) in enumerate(places(ast.parse(source))):
        for change in changes(node):
            tree = ast.parse(source)
            changed, *_ = list(places(tree))[i]
            change(changed)
            last = statement.body[0].lineno - 1 if hasattr(statement, "body") else statement.end_lineno
            lines = range(statement.lineno, max(last, statement.lineno) + 1)
            yield Mutant(file, function, reads(tree, changed), node.lineno, lines, ast.fix_missing_locations(tree))


def put_in_place(file: str, tree: ast.Module) -> None:
    """Other code takes hold in this process: functions get it, and stay who they are to whoever holds them; all else
    is replaced wherever it goes by the same name."""
    name = "rscir_lib." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module = importlib.import_module(name)
    space = vars(module)
    before = dict(space)
    exec(compile(tree, module.__file__, "exec"), space)
    ours = [vars(m) for name, m in list(sys.modules.items()) if name.startswith(("rscir_lib", "test_"))]
    for name, old in before.items():
        new = space[name]
        if isinstance(old, types.FunctionType) and old.__module__ == module.__name__:
            old.__code__, old.__defaults__ = new.__code__, new.__defaults__
            space[name] = old
        elif new is not old and not name.startswith("__"):
            for other in ours:
                if other.get(name) is old:
                    other[name] = new


class Campaign:
    """A pytest plugin: in the place of the tests' one run, a run in a process of its own for every change.

    So that one takes no longer than its tests, all is imported and collected once.
    """

    def __init__(self, files: list[str], chosen: list[Mutant], survived: Callable[[Mutant], None]) -> None:
        self.files, self.chosen, self.survived = files, chosen, survived
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items if not any(w in item.name for w in ELSEWHERE)}
        seconds, reach = self.unchanged()
        for mutant in tqdm(self.chosen, unit=" changes"):
            if not self.verdict(mutant, seconds, reach):
                self.survived(mutant)
        return True

    def verdict(self, mutant: Mutant, seconds: dict, reach: dict) -> int:
        """0 where no test that reaches the line fails, the quickest first."""
        names = set().union(*(reach[mutant.file, line] for line in mutant.lines if (mutant.file, line) in reach))
        if not (names and mutant.function):  # the import reaches it: whatever looks at the room may notice
            names = set().union(*(names for (file, _), names in reach.items() if file == mutant.file))
            files = {name.split("::")[0] for name in names}
            names = {name for name in self.items if name.split("::")[0] in files}
        ordered = sorted(names, key=seconds.__getitem__)

        def work() -> int:
            put_in_place(mutant.file, mutant.tree)
            return self.run(ordered, seconds)

        return forked(work, 20 + 10 * sum(map(seconds.__getitem__, ordered)))

    def run(self, names: list[str], seconds: dict[str, float] | None = None) -> bool:
        """Whether one fails. With their usual seconds, one that takes much longer ends this process."""
        items = [self.items[name] for name in names]
        for item, following in zip(items, [*items[1:], None], strict=True):
            if seconds:
                signal.setitimer(signal.ITIMER_PROF, 10 + 10 * seconds[item.nodeid])  # of this process's own time
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return True
        return False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def unchanged(self) -> tuple[dict[str, float], dict[tuple[str, int], set[str]]]:
        """Of each test the seconds; of each line (file, number) the tests that reach it."""
        traced = {str(LIBRARY / file): file for file in self.files}
        with tempfile.NamedTemporaryFile() as found:

            def work() -> int:
                for file in self.files:  # put in place as a change is, or failures would say nothing
                    put_in_place(file, ast.parse((LIBRARY / file).read_text()))
                reach = {}
                for name in self.items:
                    reached = set()

                    def line(frame: types.FrameType, event: str, _: object, reached: set = reached) -> Callable:
                        reached.add((traced[frame.f_code.co_filename], frame.f_lineno))
                        return line

                    sys.settrace(lambda frame, *_, line=line: line if frame.f_code.co_filename in traced else None)
                    self.run([name])
                    sys.settrace(None)
                    reach[name] = sorted(reached)
                Path(found.name).write_text(json.dumps([self.seconds, reach, self.failed]))
                return 0

            forked(work, 1800)
            seconds, reach, failed = json.loads(Path(found.name).read_text() or '[{}, {}, ["none ran"]]')
        if failed:
            raise SystemExit(f"without any change there fail: {', '.join(failed)}")
        of_line = defaultdict(set)
        for name, reached in reach.items():
            for file, number in reached:
                of_line[file, number].add(name)
        return seconds, of_line


def forked(work: Callable[[], int], limit: float) -> int:
    """What `work` gives in a process of its own, without its output; -1 where it takes longer than `limit`."""
    if not (pid := os.fork()):
        code = 99
        try:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))  # a changed number may ask for any memory
            code = int(work())
        finally:
            os._exit(code)
    waited, late = 0.0, False  # added up, or a campaign that is stopped for a while would find all late
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if late := waited > limit:
            break
        time.sleep(0.005)
        waited += 0.005
    os.killpg(pid, signal.SIGKILL)  # and what it started
    _, status = os.waitpid(pid, 0)
    return -1 if late else os.waitstatus_to_exitcode(status)


def known_equivalent() -> dict[tuple[str, str, str], str]:
    rows = [line.split("\t") for line in EQUIVALENT.read_text().splitlines()[1:]]
    return {(file, function, text): reason for file, function, text, reason in rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", default=ROOMS, help="in rscir_lib, such as ranking or methods/basic.py")
    parser.add_argument("--sample", type=int, help="so many of the changes, at random")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    files = files_of(arguments.files)
    every = [mutant for file in files for mutant in mutants(file)]
    reasons = known_equivalent()
    for file, function, text in reasons.keys() - {mutant.key for mutant in every}:
        if file in files:
            print(f"{EQUIVALENT.name}: there is no such change any more: {file} {function}: {text}")
    chosen = [mutant for mutant in every if mutant.key not in reasons]
    if arguments.sample and arguments.sample < len(chosen):
        chosen = random.Random(arguments.seed).sample(chosen, arguments.sample)
        chosen.sort(key=lambda mutant: (files.index(mutant.file), mutant.line))
    left = defaultdict(list)

    def survived(mutant: Mutant) -> None:
        left[mutant.file].append(mutant)
        tqdm.write(f"survives: rscir_lib/{mutant.file}:{mutant.line} {mutant.function}: {mutant.text}")

    settings = hypothesis.settings
    settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None, max_examples=EXAMPLES,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),  # a failure need not become a small one
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    settings.load_profile("mutants")
    init = settings.__init__
    settings.__init__ = lambda self, parent=None, **options: init(
        self, parent, **options | ({"max_examples": EXAMPLES} if "max_examples" in options else {})
    )
    torch.set_num_threads(1)
    os.chdir(PROJECT)
    with tempfile.TemporaryDirectory() as folder:
        options = ["-qqs", "--no-header", "--no-summary", f"--basetemp={folder}/x", "-p", "no:cacheprovider"]
        if pytest.main([*options, *TESTS], [Campaign(files, chosen, survived)]):
            return 1
    for file in files:
        run = sum(mutant.file == file for mutant in chosen)
        print(f"{file}: {run - len(left[file])} of {run} changes noticed")
    killed = 100 * (1 - sum(map(len, left.values())) / max(len(chosen), 1))
    print(
        f"{killed:.1f} % of {len(chosen)} changes noticed"
        f"{f', a sample of {len(every)}' if arguments.sample else ''}; {WANTED} % are wanted. "
        f"{sum(mutant.key in reasons for mutant in every)} more alter nothing ({EQUIVALENT.name})."
    )
    return killed < WANTED


if __name__ == "__main__":
    sys.exit(main())
