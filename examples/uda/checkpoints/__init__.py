"""Trained networks: reading a run's or a released file, evaluating, writing predictions.

May import settings, runtime, networks, data.
"""
