"""The pages that people read, and the code blocks in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("examples/**/*.md"))]
PAGES += [path for path in sorted(ROOT.glob("benchmarks/**/*.md")) if "results" not in path.parts]
PAGES += [ROOT / "benchmarks/results/drawn/README.md", ROOT / "tests/parity/README.md"]


class Block(NamedTuple):
    """A fenced block: `language` is what stands behind its first fence; "" means commands to type."""

    page: Path
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.splitlines()[0][:40]}"


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(page, language, text) for language, text in found]


def commands(block: Block) -> list[list[str]]:
    """The words of each command; comments are dropped and continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
