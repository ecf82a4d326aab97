"""Holds MRM in the published code of DAFormer, HRDA and MIC against our trainer: prints a table of errors.

    python benchmarks/official_mic.py PATH/TO/MIC                  # under a minute

PATH/TO/MIC is a checkout of github.com/lhoyer/MIC; nothing of it is here. It needs mmcv 1.3.7 and a few packages more,
which examples/official_mic/README.md lists, and runs on today's PyTorch as it is. MRM is added to a copy of it by
examples/official_mic/mrm.patch. Its loss and all its gradients in one training step are compared with our trainer's,
with the same weights, images and masks, in float64.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from shared.official_equality import differences
from shared.official_tree import patched_copy

METHODS = ("daformer", "hrda", "mic")
PARTS = ("loss", "encoder", "decoder", "Rebuilder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of github.com/lhoyer/MIC")
    args = parser.parse_args()
    print(f"| MRM in | {' | '.join(PARTS)} |", "|---|" + "---|" * len(PARTS), sep="\n")
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = patched_copy(args.checkout, Path(folder))
        for method in METHODS:
            found = differences(copy, method)
            errors += [found[part] for part in PARTS]
            print(f"| {method} | " + " | ".join(f"{found[part]:.1e}" for part in PARTS) + " |", flush=True)
    print("\nErrors in float64: of the loss, relative; of the gradients, relative to their standard deviation.")
    if not all(error < 1e-9 for error in errors):
        raise SystemExit("expected errors below 1e-9")


if __name__ == "__main__":
    main()
