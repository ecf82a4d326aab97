"""The rooms of examples/uda: small, and their imports run downwards only, as their docstrings say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

UDA = Path(__file__).parents[1] / "examples" / "uda"
MOST_FILES = 11


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


# in the order of the list in examples/uda/__init__.py, the lowest first
ROOMS = [line.split()[0] for line in docstring(UDA / "__init__.py").splitlines() if "  " in line]


def rooms_imported(room: str) -> set[str]:
    """The other rooms that a room's files import."""
    found = set()
    for path in (UDA / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if node.level == 2:
                    found |= {module.split(".")[0]} if module else {name.name for name in node.names}
                assert node.level < 3 and not module.startswith("uda"), f"{path}:{node.lineno}: import rooms as ..ROOM"
            elif isinstance(node, ast.Import):
                assert not any(name.name.startswith("uda") for name in node.names), f"{path}:{node.lineno}"
    return found - {room}


def test_every_folder_is_listed():
    folders = {path.name for path in UDA.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders == set(ROOMS)
    assert [path.name for path in UDA.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downwards(room):
    above = ROOMS[: ROOMS.index(room)]
    assert rooms_imported(room) <= set(above)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_may_import(room):
    *_, said = docstring(UDA / room / "__init__.py").splitlines()
    words = said.removeprefix("May import ").rstrip(".")
    allowed = {"no other room": set(), "every other room": set(ROOMS) - {room}}.get(words, set(words.split(", ")))
    assert rooms_imported(room) == allowed


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_small(room):
    assert len([path for path in (UDA / room).rglob("*.py") if path.name != "__init__.py"]) <= MOST_FILES
