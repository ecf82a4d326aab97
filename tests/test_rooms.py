"""The imports of the rooms of examples/uda run in one direction: from a room to those above it in the list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

UDA = Path(__file__).parents[1] / "examples" / "uda"
# as the docstring of examples/uda/__init__.py lists them, the one that imports nothing first
LISTED = (ast.get_docstring(ast.parse((UDA / "__init__.py").read_text())) or "").splitlines()
ROOMS = [line.split()[0] for line in LISTED if "  " in line]


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


@pytest.mark.parametrize(
    "room", sorted(path.name for path in UDA.iterdir() if path.is_dir() and path.name[0] not in "._")
)
def test_imports_run_in_one_direction(room):
    assert rooms_imported(room) <= set(ROOMS[: ROOMS.index(room)])
