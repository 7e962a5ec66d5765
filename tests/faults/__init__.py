"""Faults that are made to happen: disks that fail, memory, descriptors and threads that
run out, clients of every bad kind. Whatever it is, there is an error, nothing of it
stays, and the next command is answered. docs/limits.md tells of each.
"""
