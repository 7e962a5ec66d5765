from __future__ import annotations

import pytest

from memd.compat import Compat


@pytest.mark.parametrize(
    ("option", "version"), [("10.0", (10, 0, 2)), ("11.1", (11, 1, 3))], ids=["10.0", "11.1"]
)
def test_versions(option: str, version: tuple[int, int, int]) -> None:
    """What the option names is the release that was measured."""
    assert Compat(option).version == version


def test_every_release_is_of_the_version_that_it_is_called_by() -> None:
    for compat in Compat:
        major, minor, _ = compat.version
        assert compat.value == f"{major}.{minor}"
