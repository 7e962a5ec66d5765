"""Pools are filled inside of the sandbox, and made anew by the next daemon."""

from __future__ import annotations

from memd.client import Client
from tests.differential.harness import settle
from tests.systemd.machine import Machine

KINDS = ("memfd", "ram", "shm")
POOLS = " ".join(f"--pool memory-backend-{kind},size=8M" for kind in KINDS)


def full(client: Client) -> bool:
    found = settle(
        lambda: client.execute("x-pool-query"),
        lambda pools: all(each["ready"] or "stopped" in each for each in pools),
        30,
    )
    return [each["ready"] for each in found] == [1, 1, 1]


def test_pools(fresh: Machine) -> None:
    fresh.drop_in("memd.service", f"[Service]\nEnvironment=MEMD_OPTIONS='{POOLS}'\n")
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        assert full(client)
        for kind in KINDS:
            options = {"qom-type": f"memory-backend-{kind}", "size": 8 << 20, "prealloc": True}
            client.execute("object-add", {"id": kind, **options})
        assert [each["taken"] for each in client.execute("x-pool-query")] == [1, 1, 1]
        client.execute("object-del", {"id": "ram"})
        client.execute("x-memdev-write", {"id": "memfd", "offset": 0, "data": "a2VwdA=="})
    fresh.systemctl("restart", "memd.service")
    with fresh.client() as client:
        assert full(client)
        read = {"id": "memfd", "offset": 0, "length": 4}
        assert client.execute("x-memdev-read", read) == {"data": "a2VwdA=="}
        status = "2 backends, 16 MiB; pools: 3 of 3 ready"
        told = settle(lambda: fresh.show("memd.service", "StatusText"), lambda now: now == status)
        assert told == status
        for id in ("memfd", "shm"):
            client.execute("object-del", {"id": id})
    fresh.systemctl("stop", "memd.socket", "memd.service")
