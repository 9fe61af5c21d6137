"""Which one-line mistakes in the code do its nearest tests notice? A seeded sample of them.

usage: python -m benchmarks.mutants ROOM [--sample N] [--seed S] [--only TEXT] [--jobs J]

A mutant is one change of one expression: an operator, a comparison, a constant, a sign, two swapped
arguments, a dropped call, a statement left out. Each runs against the nearest test files only, in a
process forked after the packages were imported, so it costs what its tests cost. It is killed when
a test fails or its tests take three times as long as without it. Programs that tests start see no
mutant, so tests marked ``dist`` are left out, and slow ones. The last line is the share killed; the
mutants that live are printed before it.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[1]
FORK = multiprocessing.get_context("fork")  # a child has what its parent imported
GRACE = 20.0  # seconds a mutant gets beside three times its tests' own time

# Nearest tests of the files below a path; the longest path that fits counts.
DIT = (
    "models/dit/test_model",
    "models/dit/test_modulation",
    "models/dit/test_rope",
    "models/dit/test_pack_invisible",
)
COUNTS = ("models/test_architecture", "models/test_count", "models/test_roles")
LAYOUT = (
    "trainer/parallel/test_layout",
    "trainer/parallel/test_cost_by_hand",
    "trainer/parallel/test_cost",
    "trainer/parallel/test_config",
    "trainer/parallel/test_pipeline",
    "launch/planner/test_dit_facts",
)
NEAREST: dict[str, dict[str, tuple[str, ...]]] = {
    "models": {
        "models/": COUNTS,
        "models/config.py": (
            "models/test_config",
            "models/dit/test_rope",
            "models/codec/test_codec",
        ),
        "models/architecture": (
            *COUNTS,
            "launch/planner/test_dit_facts",
            "trainer/parallel/test_layout",
        ),
        "models/objectives/": ("models/objectives/test_flow",),
        "models/objective.py": ("models/objectives/test_flow", "trainer/diffusion/test_objective"),
        "models/attention.py": ("models/test_attention",),
        "models/pack.py": ("models/dit/test_pack_invisible", "models/test_attention"),
        "models/text.py": ("models/test_text",),
        "models/dit/": (*DIT, "models/test_count", "models/test_roles"),
        "models/precondition.py": ("models/dit/test_model",),
        "models/network.py": ("models/test_roles", "models/dit/test_model"),
        "models/codec/codec.py": ("models/codec/test_codec", "models/codec/test_vae"),
        "models/codec/wavelet.py": ("models/codec/test_wavelet",),
        "models/codec/": (
            "models/codec/test_vae",
            "models/codec/test_perceptual",
            "models/codec/test_codec",
        ),
        "models/captioner/": ("models/captioner/test_model",),
        "models/captioner/count.py": ("models/test_count_small",),
        "models/codec/count.py": ("models/test_count_small",),
    },
    "trainer": {
        "trainer/optim.py": ("trainer/test_optim",),
        "trainer/diffusion/ema.py": ("trainer/test_optim",),
        "trainer/diffusion/micro_batch.py": (
            "trainer/diffusion/test_micro_batch",
            "trainer/diffusion/test_collate",
        ),
        "trainer/diffusion/evaluate.py": ("trainer/diffusion/test_evaluate",),
        "trainer/diffusion/loss_guard.py": ("trainer/diffusion/test_loss_guard",),
        "trainer/diffusion/horizon.py": (
            "trainer/diffusion/test_horizon",
            "trainer/diffusion/test_collate",
        ),
        "trainer/layout/": LAYOUT,
    },
    "data": {
        "data/loading/planner.py": ("data/loading/test_planner",),
        "data/loading/mixture.py": ("data/loading/test_mixture",),
        "data/loading/stream.py": ("data/loading/test_mixture", "data/loading/test_planner"),
        "data/dataset/tokens.py": ("data/loading/test_planner",),
    },
    "fit": {
        "sweeps/fit/forms/": ("sweeps/fit/test_forms",),
        "sweeps/fit/optimum/": (
            "sweeps/fit/test_solve",
            "sweeps/fit/test_profile",
            "sweeps/fit/test_trust",
            "sweeps/fit/test_forms",
        ),
        "sweeps/fit/minima/": (
            "sweeps/fit/test_minima",
            "sweeps/fit/test_bootstrap",
            "sweeps/fit/test_law",
        ),
        "sweeps/fit/weightings.py": ("sweeps/fit/test_y_axis",),
        "sweeps/fit/forecast": ("sweeps/fit/forecast/test_told", "sweeps/fit/forecast/test_judged"),
        "sweeps/fit/trust/": (
            "sweeps/fit/test_trust",
            "sweeps/fit/test_bootstrap",
            "sweeps/fit/test_diagnose",
            "sweeps/fit/test_solve",
        ),
    },
}

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the how manieth, its line, and what it is in words."""

    path: str
    number: int
    line: int
    what: str

    @property
    def source(self) -> str:
        """The whole changed file."""
        tree = ast.parse((ROOT / self.path).read_text(encoding="utf-8"))
        for number, _ in enumerate(_mutate(tree)):
            if number == self.number:
                return ast.unparse(tree)
        raise AssertionError("a file changed while its mutants ran")


def mutants_of(path: str) -> list[Mutant]:
    """Return all mutants of a file."""
    changes = _mutate(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    return [Mutant(path, number, *change) for number, change in enumerate(changes)]


def _mutate(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Change a tree in place, once for each mutant; yield line and words, then undo it."""
    for parent, name, place, node in list(_code(tree)):
        for new in _changes(node):
            ast.copy_location(new, node)
            _put(parent, name, place, ast.fix_missing_locations(new))
            yield node.lineno, f"{_first_line(node)}  ->  {_first_line(new)}"
            _put(parent, name, place, node)


def _first_line(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]


def _put(parent: ast.AST, name: str, place: int | None, node: ast.AST) -> None:
    if place is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[place] = node


Seat = tuple[ast.AST, str, int | None, ast.expr | ast.stmt]  # parent, field, place in it, node


def _code(tree: ast.AST) -> Iterator[Seat]:
    """Yield what runs: no annotations, no texts, nothing that a raise or an assert says."""
    skipped = {"annotation", "returns", "decorator_list", "bases"}
    for name, value in ast.iter_fields(tree):
        if name in skipped or isinstance(tree, ast.Raise | ast.JoinedStr | ast.Assert):
            continue
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for place, child in items:
            if isinstance(child, ast.expr | ast.stmt):
                yield tree, name, place, child
            if isinstance(child, ast.AST):
                yield from _code(child)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    new = copy.deepcopy(node)
    match new:
        case ast.BinOp() if type(new.op) in SWAPS:
            new.op = SWAPS[type(new.op)]()
            yield new
        case ast.BoolOp():
            new.op = SWAPS[type(new.op)]()
            yield new
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            new.ops = [SWAPS[type(op)]()]
            yield new
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield operand  # a sign or a "not" dropped; -1 counts from the end, it becomes -2
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(value * 2 if value else 1.0)
        case ast.IfExp(test=test) | ast.If(test=test) | ast.While(test=test):
            new.test = ast.UnaryOp(ast.Not(), test)
            yield new
        case ast.Call():
            yield from _changed_calls(new)
        case ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield ast.Pass()


def _changed_calls(call: ast.Call) -> Iterator[ast.expr]:
    """Yield a call with its first two arguments swapped, and what it is called on without it."""
    if len(call.args) >= 2 and not any(isinstance(a, ast.Starred) for a in call.args[:2]):
        swapped = copy.deepcopy(call)
        swapped.args[0], swapped.args[1] = swapped.args[1], swapped.args[0]
        yield swapped
    match call.func:
        case ast.Attribute(value=value) if not isinstance(value, ast.Name | ast.Constant):
            yield value
        case ast.Name(id="min"):
            yield ast.Call(ast.Name("max"), call.args, call.keywords)
        case ast.Name(id="max"):
            yield ast.Call(ast.Name("min"), call.args, call.keywords)
        case _ if len(call.args) == 1 and not call.keywords:
            yield call.args[0]


class _Swapped(importlib.abc.MetaPathFinder):
    """Imports one module from another source."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = mutant.path.removesuffix(".py").replace("/", ".")
        self.mutant = mutant

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name != self.name:
            return None
        source = self.mutant.source

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return compile(source, self.path, "exec")

        file = str(ROOT / self.mutant.path)
        return importlib.util.spec_from_file_location(name, file, loader=Loader(name, file))


def _run(mutant: Mutant | None, tests: Sequence[str], imported: Path | None = None) -> None:
    """Run tests in this process and leave with pytest's code; tell what packages they import."""
    os.setsid()  # so that what tests start can be ended with them
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # pytest warns of those imported before it
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    if mutant is not None:
        sys.meta_path.insert(0, _Swapped(mutant))
    code = pytest.main(
        ["-x", "-q", "-p", "no:cacheprovider", "-m", "not dist and not slow", *tests]
    )
    if imported is not None:
        own = {path.stem for path in ROOT.iterdir()} | {"conftest", "__main__", "__mp_main__"}
        names = [name for name in sys.modules if name.partition(".")[0] not in own]
        imported.write_text("\n".join(names), encoding="utf-8")
    os._exit(int(code))


def _baseline(tests: tuple[str, ...]) -> float:
    """Import the packages that tests import; return the tests' seconds; raise where they fail."""
    with tempfile.NamedTemporaryFile() as file:
        begun = time.monotonic()
        child = FORK.Process(target=_run, args=(None, tests, Path(file.name)))
        child.start()
        child.join()
        taken = time.monotonic() - begun
        if child.exitcode != 0:
            raise SystemExit(f"pytest {' '.join(tests)}: must pass without a mutant. Run it.")
        for name in Path(file.name).read_text(encoding="utf-8").split():
            with contextlib.suppress(Exception):  # parts that only their package can import
                importlib.import_module(name)
    return taken


def nearest(room: str, path: str) -> tuple[str, ...]:
    """Return the test files of a source file."""
    best = max((p for p in NEAREST[room] if path.startswith(p)), key=len)
    files = tuple(f"tests/{name}.py" for name in NEAREST[room][best])
    if missing := [file for file in files if not (ROOT / file).is_file()]:
        raise SystemExit(f"{path}: {', '.join(missing)} of NEAREST is missing. Name another.")
    return files


def sources(room: str) -> list[str]:
    """Return the files of a room, as paths from the root."""
    files: set[Path] = set()
    for path in NEAREST[room]:
        there = ROOT / path
        files |= (
            set(there.rglob("*.py")) if there.is_dir() else {there} & set(there.parent.iterdir())
        )
    return sorted(str(f.relative_to(ROOT)) for f in files if f.name != "__init__.py")


def judge(chosen: list[Mutant], room: str, jobs: int) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with "killed", "slow" or "LIVES"."""
    times: dict[tuple[str, ...], float] = {}
    for mutant in chosen:
        tests = nearest(room, mutant.path)
        if tests not in times:
            times[tests] = _baseline(tests)
    running: list[tuple[Mutant, multiprocessing.process.BaseProcess, float]] = []
    waiting = list(chosen)
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop(0)
            tests = nearest(room, mutant.path)
            child = FORK.Process(target=_run, args=(mutant, tests))
            child.start()
            running.append((mutant, child, time.monotonic() + 3 * times[tests] + GRACE))
        time.sleep(0.02)
        for entry in list(running):
            mutant, child, end = entry
            if child.is_alive() and time.monotonic() < end:
                continue
            running.remove(entry)
            slow = child.is_alive()
            if slow and child.pid is not None:
                os.killpg(child.pid, signal.SIGKILL)
            child.join()
            yield mutant, "slow" if slow else "killed" if child.exitcode else "LIVES"


def main() -> None:
    """Draw a sample of a room's mutants, run each, print those that live and the share killed."""
    parser = argparse.ArgumentParser(prog="benchmarks.mutants", description=__doc__)
    parser.add_argument("room", choices=NEAREST)
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose path holds this text")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    files = [path for path in sources(given.room) if given.only in path]
    every = [mutant for path in files for mutant in mutants_of(path)]
    chosen = random.Random(given.seed).sample(every, min(given.sample, len(every)))
    # Files together: their tests' imports are shared.
    chosen.sort(key=lambda mutant: (mutant.path, mutant.line))
    print(f"{given.room}: {len(chosen)} of {len(every)} mutants, {len(files)} files", flush=True)
    tally: dict[str, list[int]] = {}
    for mutant, verdict in judge(chosen, given.room, given.jobs):
        counts = tally.setdefault(mutant.path, [0, 0])
        counts[0] += verdict != "LIVES"
        counts[1] += 1
        if verdict != "killed":
            print(f"{verdict}  {mutant.path}:{mutant.line}  {mutant.what}", flush=True)
    for path, (killed, tried) in sorted(tally.items()):
        print(f"{killed:4d} of {tried:3d}  {path}")
    killed = sum(counts[0] for counts in tally.values())
    print(f"killed {killed} of {len(chosen)}: {killed / max(len(chosen), 1):.1%}")


if __name__ == "__main__":
    main()
