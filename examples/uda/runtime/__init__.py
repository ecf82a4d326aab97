"""What every process stands on: who it is among several, random numbers that depend on their purpose alone, how passes
are run, constants on the device, time and memory.

May import no other room.
"""
