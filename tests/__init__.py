"""memd's tests; they mirror the package, and stand beside a real QEMU in `differential`."""

import pytest

# A failing assert in the harness says what was compared, as one in a test does.
pytest.register_assert_rewrite("tests.differential.harness")
