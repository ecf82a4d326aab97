"""What every process stands on: who it is among several, and random numbers that depend on their purpose alone.

May import no other room.
"""
