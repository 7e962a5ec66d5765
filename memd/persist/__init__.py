"""Restart without loss, under a service manager that keeps descriptors.

The manager's descriptor store (`fdstore`) has the memory of each object and the log of
objects (`object_log`). `recorder` writes changes of objects to both; `restoring`
restores them at the next start; `crash_recovery` removes what a kill -9 left
unfinished. `service_manager` uses all of these. Composition alone imports
this room, and only under a service manager.
"""
