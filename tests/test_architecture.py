"""The house keeps its plan: what each room may import, how big a file may grow, and that every choice is looked after.

`ROOMS` is the table of the design. Changing it is allowed; do it in the open, with the reason in the commit.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "src" / "tunesmith"
TESTS = ROOT / "tests"


class Room(NamedTuple):
    """A row of the design's table."""

    floor: int
    choices: bool  # whether every file without a leading underscore is one choice
    may_import: frozenset[str]


def _room(floor: int, may_import: str = "", choices: bool = False) -> Room:
    return Room(floor, choices, frozenset(may_import.split()))


ROOMS = {
    "core": _room(0),
    "store": _room(1, "core"),
    "data": _room(1, "core", choices=True),
    "models": _room(1, "core"),
    "prompts": _room(1, "core"),
    "methods": _room(1, "core", choices=True),
    "objectives": _room(1, "core", choices=True),
    "metrics": _room(1, "core", choices=True),
    "tasks": _room(2, "core prompts metrics", choices=True),
    "engine": _room(2, "core models methods"),
    "feedback": _room(2, "core store metrics"),
    "evaluation": _room(3, "core store models prompts metrics tasks engine"),
    "serving": _room(3, "core store models methods prompts engine"),
    "recipes": _room(
        4,
        "core store data models prompts methods objectives metrics tasks engine feedback evaluation serving",
        choices=True,
    ),
    "studio": _room(5, "core store feedback evaluation recipes"),
    # A command that looks at data or models alone (`models list`) asks those rooms, not a recipe around them.
    "cli": _room(6, "core store data models feedback evaluation serving recipes studio", choices=True),
}
# A method is often another one with a turn to it (dora is lora with a magnitude), so a method may import a method.
# One way through the life cycle may be the beginning of another: pretrain makes a model from nothing, then trains it.
CHOICES_MAY_BUILD_ON_EACH_OTHER = {"methods", "recipes"}
# A recipe is read top to bottom, and the loop is the heart of everything: they are held shorter than the rest.
RECIPE_LINES, RECIPE_MACHINERY_LINES, LOOP_LINES, OTHER_LINES = 150, 250, 250, 450
SHAPELESS = {"utils", "util", "common", "helpers", "helper", "misc"}
# `tunesmith --help` answers in 0.3 s: these rooms may be imported for it and leave heavy packages to their functions.
LIGHT_ROOMS = ("core", "store", "data", "tasks", "metrics", "cli")
HEAVY = {"torch", "transformers", "peft", "datasets", "sklearn", "scipy", "pandas", "matplotlib"}
HEAVY |= {"rouge_score", "sacrebleu", "seqeval", "datasketch", "bm25s", "py3langid", "gguf", "optuna"}


class Import(NamedTuple):
    """One import of one of our own modules, e.g. line 12, ``tunesmith.core.errors``."""

    line: int
    module: str

    @property
    def room(self) -> str:
        return [*self.module.split("."), ""][1]


def _files() -> list[Path]:
    return sorted(path for path in HOUSE.rglob("*.py"))


def _place(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def _room_of(path: Path) -> str:
    """The room a file is in; the house's own `__init__.py` and `__main__.py` are the roof, "" ."""
    parts = path.relative_to(HOUSE).parts
    return parts[0] if len(parts) > 1 else ""


def _modules(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module that one statement or call names, ``from a import b`` as ``a.b`` (b may be a module of a)."""
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
        literals = (argument for argument in node.args if isinstance(argument, ast.Constant))
        yield from ((node.lineno, str(literal.value)) for literal in literals)


def imports(source: str) -> list[Import]:
    """Our own modules that a source imports, inside functions and type-checking blocks too."""
    found = (found for node in ast.walk(ast.parse(source)) for found in _modules(node))
    return [Import(line, module) for line, module in found if module.split(".")[0] == "tunesmith"]


def complaints(path: Path, source: str) -> list[str]:
    """What is wrong with the imports of one file, a line each."""
    room = _room_of(path)
    relative = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level]
    told = [f"{_place(path)}:{node.lineno} imports relatively; write it from tunesmith down" for node in relative]
    if not room:
        return told
    for found in imports(source):
        if found.room not in ROOMS:
            told.append(f"{_place(path)}:{found.line} imports the roof ({found.module}), which stands on {room}")
        elif found.room != room and found.room not in ROOMS[room].may_import:
            told.append(f"{_place(path)}:{found.line} imports {found.room}, which {room} may not")
        elif found.room == room and _is_sideways(room, path, found):
            told.append(f"{_place(path)}:{found.line} imports {found.module}, another choice of {room}")
    return told


def _is_sideways(room: str, path: Path, found: Import) -> bool:
    if not ROOMS[room].choices or room in CHOICES_MAY_BUILD_ON_EACH_OTHER:
        return False
    target = found.module.split(".")[2]
    return target in {choice.stem for choice in _choices(room)} - {path.stem}


def _choices(room: str) -> list[Path]:
    return sorted(path for path in (HOUSE / room).glob("*.py") if not path.stem.startswith("_"))


ALL_CHOICES = [path for room, row in ROOMS.items() if row.choices for path in _choices(room)]
every_file = pytest.mark.parametrize("path", _files(), ids=_place)
every_choice = pytest.mark.parametrize("path", ALL_CHOICES, ids=_place)


@every_file
def test_imports_are_absolute_downward_and_never_sideways(path: Path) -> None:
    assert complaints(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("place", "source", "complaint"),
    [
        ("store/x.py", "from tunesmith.models import load", "imports models, which store may not"),
        ("core/x.py", "def f():\n    import tunesmith.store.runs", "core/x.py:2 imports store"),
        ("data/jsonl.py", "from tunesmith.data import csv", "another choice of data"),
        ("engine/x.py", "from ..core import errors", "imports relatively"),
        ("engine/x.py", "from tunesmith import climb", "imports the roof"),
        ("engine/x.py", "import importlib\nimportlib.import_module('tunesmith.cli.train')", "imports cli"),
    ],
)
def test_a_planted_import_is_found(place: str, source: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}._choices", lambda room: [HOUSE / room / "csv.py", HOUSE / room / "jsonl.py"])
    assert complaint in "\n".join(complaints(HOUSE / place, source))


def test_allowed_imports_are_allowed() -> None:
    source = "from tunesmith.core.errors import Mistake\nfrom tunesmith.data import _read\nfrom tunesmith import core"
    assert complaints(HOUSE / "data" / "jsonl.py", source) == []


def test_every_room_is_in_the_table_and_the_table_points_down() -> None:
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= set(ROOMS)
    for name, room in ROOMS.items():
        assert all(ROOMS[other].floor < room.floor for other in room.may_import), name


@every_file
def test_no_file_is_shapeless(path: Path) -> None:
    assert not {part.removesuffix(".py").strip("_") for part in path.relative_to(HOUSE).parts} & SHAPELESS


def _lines_allowed(path: Path) -> int:
    if _room_of(path) == "recipes":
        return RECIPE_MACHINERY_LINES if path.stem.startswith("_") else RECIPE_LINES
    return LOOP_LINES if _place(path) == "engine/loop.py" else OTHER_LINES


@every_file
def test_a_file_fits_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= _lines_allowed(path)


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.[ch]")), ids=_place)
def test_a_file_of_c_fits_as_well(path: Path) -> None:
    lines = path.read_text(encoding="ascii").splitlines()
    assert len(lines) <= OTHER_LINES
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("init", sorted(HOUSE.glob("*/__init__.py")), ids=_place)
def test_a_room_opens_with_its_contract_and_nothing_else(init: Path) -> None:
    tree = ast.parse(init.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@every_choice
def test_a_choice_says_in_one_line_what_it_is(path: Path) -> None:
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n", 1)[0]
    assert first.strip()


@every_choice
def test_a_choice_is_tested(path: Path) -> None:
    """By a file of its own, or by name in the tests of its room, its contract, parity or the invariants."""
    room = path.parent.name
    if (TESTS / room / f"test_{path.stem}.py").exists():
        return
    nearby = [*(TESTS / room).glob("*.py"), *(TESTS / "parity").glob("*.py"), *(TESTS / "invariants").glob("*.py")]
    nearby += [contract] if (contract := TESTS / "contracts" / f"test_{room}.py").exists() else []
    word = re.compile(rf"\b{path.stem}\b")
    assert any(word.search(test.read_text(encoding="utf-8")) for test in nearby), f"no test names {path.stem}"


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements run on import: those of the module and of its plain `if` and `try` blocks, not `if TYPE_CHECKING`."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop(0)
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.unparse(statement.test):
            waiting += [*statement.body, *statement.orelse]
        elif isinstance(statement, ast.Try):
            waiting += [*statement.body, *statement.orelse, *statement.finalbody]


@pytest.mark.parametrize("path", [path for room in LIGHT_ROOMS for path in (HOUSE / room).rglob("*.py")], ids=_place)
def test_a_light_room_leaves_heavy_imports_to_its_functions(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loaded = {module.split(".")[0] for statement in _top_level(tree) for _, module in _modules(statement)}
    assert not loaded & HEAVY
