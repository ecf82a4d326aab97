"""What every process stands on: who it is among several, random numbers that depend on their purpose alone, constants
on the device, memory.

May import no other room.
"""
