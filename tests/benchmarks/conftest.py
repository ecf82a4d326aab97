import sys
from pathlib import Path

STUDY = Path(__file__).resolve().parents[2] / "benchmarks" / "study"
sys.path.insert(0, str(STUDY))
