"""Figures on the pages are those of the tables, and the study's tables those of its runs."""

from __future__ import annotations

import json
import re
import statistics

import pytest
from pages import PAGES, ROOT

RESULTS = ROOT / "benchmarks" / "results"
TABLES = [path for path in (ROOT / "benchmarks").glob("**/results/**/*.md") if path.name != "README.md"]
MEANS = r"[+-]?\d+\.\d\d (?:± \d+\.\d\d|\[[^\]]*\])"
OVERHEADS = r"([+-]\d+(?:\.\d)?) % \(([+-]?\d+(?:\.\d)?) to ([+-]?\d+(?:\.\d)?)\)"
STUDENTS_T = {6: 2.5706, 8: 2.3646, 12: 2.2010}  # of n differences, for 95 %


def words(path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_means_stand_in_a_table(page):
    tables = "\n".join(map(words, TABLES))
    assert [figure for figure in re.findall(MEANS, words(page)) if figure not in tables] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_overheads_are_rounded_from_a_table(page):
    def intervals(path):
        return [[float(number) for number in found] for found in re.findall(OVERHEADS, words(path))]

    measured = [found for path in TABLES for found in intervals(path)]
    for said in intervals(page):
        assert any(said == pytest.approx(found, abs=0.551) for found in measured), said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_peaks_of_memory_are_measured(page):
    """Of a step without MRM and of one with it."""
    rows = [row for path in RESULTS.glob("overhead-*.json") for row in json.loads(path.read_text())["rows"]]
    peaks = [row["peak_memory_mib"] for row in rows]
    measured = {tuple(f"{peak[arm] / 1024:.1f}" for arm in ("baseline", "mrm")) for peak in peaks}
    assert set(re.findall(r"(\d+\.\d), (\d+\.\d) GiB", words(page))) <= measured


def test_differences_are_those_of_the_runs():
    """Every seed, mean and interval of the student's contrasts on drawn scenes."""
    lines = [json.loads(line) for line in (RESULTS / "drawn" / "runs.jsonl").read_text().splitlines()]
    # of the settings of nothing masked, the tables name the chosen one alone
    student = {(line["arm"].removesuffix(" x0.5"), line["seed"]): line["student"] for line in lines}
    _, *sections = (
        (RESULTS / "drawn" / "tables.md").read_text().split("mIoU of the student, differences paired by seed:")
    )
    rows = [row.split(" | ") for section in sections for row in section.split("\n\n")[1].splitlines()[2:]]
    assert len(rows) == 16 + 16 + 3 + 3 + 2
    for contrast, n, interval, _, by_seed, seeds in rows:
        a, b = contrast.removeprefix("| ").split(" - ")
        first = int(seeds.split()[0])
        differences = [student[a, seed] - student[b, seed] for seed in range(first, first + int(n))]
        assert by_seed == ", ".join(f"{difference:+.2f}" for difference in differences)
        mean, half = statistics.mean(differences), STUDENTS_T[int(n)] * statistics.stdev(differences) / int(n) ** 0.5
        said = [float(number) for number in re.findall(r"[+-][\d.]+", interval)]
        assert said == pytest.approx([mean, mean - half, mean + half], abs=0.0051), contrast
