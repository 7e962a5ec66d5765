"""What `info` tells of what a stand-in keeps."""

from __future__ import annotations

from typing import Any, NoReturn, cast

import pytest

from memd.commands.hmp_registers import dump as lines_of
from memd.devices.machine import Machine
from memd.standin.channels import Opener
from memd.standin.dump import Dump
from memd.work import Job
from tests.stepping import Running


class Waiting:
    """Opens what does not answer."""

    async def open(self, where: dict[str, Any], write: bool) -> NoReturn:
        await Job(lambda: None)
        raise AssertionError


def test_a_dump_whose_file_is_being_opened() -> None:
    dump = Dump(cast(Machine, None))
    running = Running(dump.start({"paging": False, "protocol": "file:/f"}, cast(Opener, Waiting())))
    assert lines_of(dump.query()) == ["Status: active", "Finished: 0.00 %"]
    with pytest.raises(OSError):
        running.fail(OSError())
    assert lines_of(dump.query()) == ["Status: none"]
