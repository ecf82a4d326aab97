"""What several benchmarks use: provenance, the steps of overhead.py and its tables, the Rebuilder written plainly."""
