"""What every process stands on: who it is among several, random numbers that depend on their purpose alone, how passes
are run, copies to the device, processes that load data, what is printed, time and memory.

May import no other room.
"""
