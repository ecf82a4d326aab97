"""What a training step is made of: teacher, mixing, colour augmentation, feature distance, and every random choice.

May import settings, runtime, networks, data.
"""
