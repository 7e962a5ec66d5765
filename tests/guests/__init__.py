"""Real guests: a kernel and a shell in memory, in QEMU without KVM."""

import pytest

# A failing assert in the helpers says what was compared, as one in a test does.
pytest.register_assert_rewrite("tests.guests.guest")
