"""What is counted of commands, whether they block or not."""

from __future__ import annotations

from typing import Any

import pytest

from memd.commands.metering import BOUNDS, Meter
from memd.errors import QMPError, device_not_found
from memd.json_types import JSON
from memd.session import Session
from memd.work import Job, run_here
from tests.commands.fakes import Console, make_session
from tests.stepping import Running


def metered(outcome: Any) -> Meter:
    def dispatch(session: Session, name: str, arguments: dict[str, Any], oob: bool) -> JSON:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return Meter(dispatch, Console().daemon)


def run(meter: Meter, name: str = "query-name") -> JSON:
    return meter(make_session(), name, {}, False)


def counted(meter: Meter, name: str = "query-name") -> int:
    return sum(meter.records[name].buckets) if name in meter.records else 0


def test_a_command() -> None:
    meter = metered({"a": 1})
    assert run(meter) == {"a": 1}
    assert run(meter) == {"a": 1}
    assert counted(meter) == 2
    assert meter.records["query-name"].errors == {}
    assert meter.records["query-name"].seconds > 0


def test_refusals_by_class() -> None:
    meter = metered(device_not_found("x"))
    for _ in range(3):
        with pytest.raises(QMPError):
            run(meter)
    assert counted(meter) == 3
    assert meter.records["query-name"].errors == {"DeviceNotFound": 3}


def test_clients_words_are_no_labels() -> None:
    meter = metered(QMPError("no"))
    for name in ("a", "b", "x-test"):
        with pytest.raises(QMPError):
            run(meter, name)
    assert set(meter.records) == {"unknown"}
    assert counted(meter, "unknown") == 3


async def slowly(value: JSON) -> JSON:
    """Wait for two jobs; an error is raised."""
    await Job(lambda: 1)
    await Job(lambda: 2)
    if isinstance(value, BaseException):
        raise value
    return value


def test_work_is_counted_at_its_end() -> None:
    meter = metered(slowly(5))
    running = Running(run(meter))
    for _ in range(2):
        assert counted(meter) == 0
        running.step()
    assert (running.value, counted(meter)) == (5, 1)


def test_work_that_fails() -> None:
    meter = metered(slowly(QMPError("no memory")))
    with pytest.raises(QMPError):
        run_here(run(meter))
    assert counted(meter) == 1
    assert meter.records["query-name"].errors == {"GenericError": 1}


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (BOUNDS[0], 0), (BOUNDS[0] * 1.01, 1), (BOUNDS[-1], -2), (BOUNDS[-1] * 2, -1)],
)
def test_buckets(seconds: float, bucket: int) -> None:
    meter = metered({})
    run(meter)
    record = meter.records["query-name"]
    record.buckets = [0] * len(record.buckets)
    record.ended(seconds, None)
    assert record.buckets[bucket] == 1
    assert sum(record.buckets) == 1
