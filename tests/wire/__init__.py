"""What memd.wire makes of bytes, and the bytes it makes."""

from hypothesis import HealthCheck, settings

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests of properties: a busy machine is not a failure."""
