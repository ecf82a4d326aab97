"""What every process stands on: who it is among several, random numbers that depend on their purpose
alone, and how passes are run.

May import no other room.
"""
