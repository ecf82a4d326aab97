"""A run from start to end: its domains, models, optimisers and schedule, the loop around the step, the report.

May import every other room.
"""
