"""The embedded pair of domains: what is drawn (render, things, car, camera), and writing it to disk in real layouts.

May import runtime.
"""
