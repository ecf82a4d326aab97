"""The networks of the trainers: encoders of a library, decoders written out here.

May import runtime.
"""
