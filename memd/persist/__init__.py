"""What outlives the daemon, where a service manager keeps descriptors for it.

The manager's descriptor store (`fdstore`) has the memory of each object and the log of
them all (`object_log`). `recorder` listens to what becomes of objects and writes it
down; `restoring` makes them again at the next start; `crash_recovery` removes what a
kill -9 left half made. `service_manager` holds it together. Composition alone imports
this room, and only under a service manager.
"""
