"""Options that bound what clients may take."""

from __future__ import annotations

import pytest

from memd.cli.bounds import NAMES
from memd.qom.quota import Quota
from memd.server.limits import Limits
from tests.cli.lines import config, memd

MIB = 1 << 20


def test_defaults() -> None:
    found = config(memd())
    assert found.quota == {}
    limits = Limits(**found.limits)
    assert vars(limits) == vars(Limits())
    assert (limits.message, limits.held_output, limits.held) == (24 * MIB, 64 * MIB, 512 * MIB)


def test_all_of_them() -> None:
    values = {
        "max-clients": "7",
        "max-clients-per-user": "5",
        "max-descriptors": "40",
        "max-descriptors-per-user": "30",
        "max-held": "32M",
        "max-held-output": "16M",
        "max-memory": "1G",
        "max-memory-per-user": "1.5G",
        "max-message": "64M",
        "max-objects": "12",
        "max-tokens": "5000",
        "negotiation-timeout": "30",
    }
    assert sorted(values) == sorted(NAMES)
    found = config(memd(*(word for name in values for word in (f"--{name}", values[name]))))
    quota = Quota(**found.quota)
    assert (quota.max_objects, quota.max_memory) == (12, 1024 * MIB)
    assert quota.max_memory_per_user == 1536 * MIB
    limits = Limits(**found.limits)
    assert (limits.clients, limits.clients_per_user, limits.negotiation) == (7, 5, 30)
    assert (limits.descriptors, limits.descriptors_per_user, limits.tokens) == (40, 30, 5000)
    assert (limits.held, limits.held_output, limits.message) == (32 * MIB, 16 * MIB, 64 * MIB)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("max-clients", "many", "Parameter 'max-clients' expects a number"),
        ("max-clients", "-1", "Parameter 'max-clients' expects a number"),
        ("max-tokens", "9", "Parameter 'max-tokens' expects a number from 4096 to 2097152"),
        ("max-objects", "1k", "Parameter 'max-objects' expects a number"),
        ("negotiation-timeout", "\u0663", "Parameter 'negotiation-timeout' expects a number"),
        ("max-memory", "much", "Parameter 'max-memory' expects a size"),
        ("max-message", "65535", "Parameter 'max-message' expects at least 65536 bytes"),
        ("max-message", "65M", "Parameter 'max-message' expects at most 67108864 bytes"),
        ("max-held", "1k", "Parameter 'max-held' expects at least 1048576 bytes"),
        ("max-held-output", "0", "Parameter 'max-held-output' expects at least 1048576 bytes"),
    ],
)
def test_refused(option: str, value: str, text: str) -> None:
    outcome = memd(f"--{option}", value)
    assert outcome.status == 1
    assert outcome.stderr.splitlines()[0] == f"--{option} {value}: {text}"
