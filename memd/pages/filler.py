"""The process that populates shared memory for pools.

    python -m memd.pages.filler FD

Each request on the socket FD is a packet: how a part of a file is mapped, a NUMA
policy and its nodes, in JSON, and the file's descriptor. The answer is a packet: 0,
or the errno value of why not every page is there. It ends with the daemon.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from contextlib import suppress
from typing import Any

from memd.hostmem.host import Host
from memd.hostmem.populate import populate_range
from memd.hostmem.region import Region
from memd.hostmem.spec import MapSpec

_LONGEST = 4096
"""Bytes of a request; it may name a hundred nodes."""


def main(number: int) -> None:
    """Do what is asked for until there is nobody left to ask."""
    # It has an address space of its own, so nobody waits for what it holds; and of idle
    # priority it leaves its processor at once to whom a client has woken.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    host = Host()
    with socket.socket(fileno=number) as sock:
        while True:
            data, fds, _flags, _address = socket.recv_fds(sock, _LONGEST, 1)
            if not data:
                return
            sock.send(b"%d" % _fill(host, fds[0], *json.loads(data)))


def _fill(host: Host, fd: int, spec: list[Any], policy: str, nodes: list[int]) -> int:
    try:
        region = Region(host, MapSpec(*spec), fd)
    except OSError as failed:
        os.close(fd)
        return failed.errno or errno.EIO
    try:
        region.prepare(merge=False, dump=True)
        if nodes:
            host.bind(region.address, region.length, policy, nodes)
        populate_range(region, 0, region.length)
    except OSError as failed:
        return failed.errno or errno.EIO
    finally:
        region.close()
    return 0


if __name__ == "__main__":
    main(int(sys.argv[1]))
