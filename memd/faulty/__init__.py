"""Fault injection, for the tests of clients: what `--test-faults` adds.

Nothing of this is imported otherwise. It stands in front of the daemon, not in
it: another hub makes other sessions, whose connection and dispatcher inject the
faults and leave the rest to the ordinary ones.
"""
