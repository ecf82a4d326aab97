"""What a run says and leaves when something goes wrong: provokes each fault and makes a table.

    python benchmarks/faults/table.py                  # as root, for disks of their own; about ten minutes on 2 cores
    python benchmarks/faults/table.py --only disks     # one group, or a part of a description: these rows anew

Each fault happens to a run of MIC with MRM on a handful of tiny embedded scenes, in processes of its own. Writes
benchmarks/results/faults.json and faults.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT), str(ROOT / "benchmarks"), str(Path(__file__).parent)]

import before  # noqa: F401 (its faults come first in the table)
import during  # noqa: F401
from place import Place
from runs import ENDED, FAULTS, Fault, Outcome
from shared.provenance import made_by, provenance

SLOW = 15.0  # seconds that a process may take to be gone


def problems(row: dict[str, Any]) -> list[str]:
    """Why a fault is not met as it should be."""
    # status 0: it went on to its end
    found = ["slow"] * (row["status"] != 0 and gone_after(row) > SLOW) + ["processes left"] * (row["left"] > 0)
    found += ["traceback"] * row["line"].startswith("TRACEBACK") + ["nothing said"] * (not row["line"])
    found += ["status 0"] * (row["status"] == 0 and "using" not in row["line"] and ENDED not in row["kept"])
    return found + [word for word in ("LEFT", "THE CODE RAN") if word in row["kept"]]


def gone_after(row: dict[str, Any]) -> float:
    """Seconds that the fault took, without those that a command takes to begin at all."""
    return max(0.0, float(row["seconds"]) - row["start"] * row["from_start"])


def table(results: dict[str, Any]) -> str:
    lines = ["| what happens | what is said | status | gone after | what is kept |", "|---|---|---|---|---|"]
    for row in results["faults"]:
        what, kept, gone = f"{row['group']}: {row['what']}", row["kept"], gone_after(row)
        lines.append(f"| {what} | {row['line'].replace('|', '/')} | {row['status']} | {gone:.1f} s | {kept} |")
    commits = sorted({row.get("commit", results["commit"]) for row in results["faults"]})
    wrong = [f"{row['what']} ({', '.join(row['problems'])})" for row in results["faults"] if row["problems"]]
    running = [row["seconds"] for row in results["faults"] if not row["from_start"]]
    lines += [
        "",
        f"{len(results['faults'])} faults. In the middle of a run ({len(running)} of them) seconds are counted from "
        f"the fault, the slowest {max(running, default=0):.1f} s; else from the start of the command, without "
        "the seconds that it takes to show its help. … is the folder that all is in.",
        "",
        f"Not met as they should be: {'; '.join(wrong)}." if wrong else "All are met in one line, without a hang.",
        "",
        made_by(results | {"commit": ", ".join(commits)}),
    ]
    return "\n".join([*lines, ""])


def provoke(fault: Fault, root: Path, ended: Path | None, start: float) -> dict[str, Any]:
    place = Place(root, ended)
    try:
        outcome = fault.provoke(place)
    except Exception as error:  # of this script's own
        outcome = Outcome(f"TRACEBACK here: {error!r}", -1, 0.0, "", 0, False)
    finally:
        place.close()
    row = {"group": fault.group, "what": fault.what, "start": start, **dataclasses.asdict(outcome)}
    return row | {"problems": problems(row)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="parts of groups or descriptions")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time (default: 1)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = provenance() | {"faults": []}
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        first = Place(Path(name) / "first", None)
        run = first.train(iterations=4)
        if run.wait():
            sys.exit(run.said())
        results["start"] = first.script("train_mic_mrm.py", "--help").outcome().seconds
        chosen = [
            fault
            for fault in FAULTS
            if not args.only or any(part in f"{fault.group}: {fault.what}" for part in args.only)
        ]

        order = [(fault.group, fault.what) for fault in FAULTS]
        path = args.out / "faults.json"
        rows = json.loads(path.read_text())["faults"] if args.only and path.exists() else []
        earlier = dict.fromkeys(order) | {(row["group"], row["what"]): row for row in rows}

        def one(number: int) -> None:
            row = provoke(chosen[number], Path(name) / str(number), run.folder, results["start"])
            earlier[row["group"], row["what"]] = row | {"commit": results["commit"]}
            said = f"{row['what']}: {row['line']} | {row['status']} | {row['seconds']:.1f} s | {row['kept']}"
            print("\n    ".join([said, *row["problems"]]), flush=True)
            results["faults"] = [row for key in order if (row := earlier[key])]  # what there is so far
            (args.out / "faults.json").write_text(json.dumps(results, indent=1) + "\n")
            (args.out / "faults.md").write_text(table(results))

        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(one, range(len(chosen))))
    print(table(results))
    sys.exit(any(row["problems"] for row in results["faults"]))


if __name__ == "__main__":
    main()
