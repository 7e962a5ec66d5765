"""A guest that reacts shuts down when it is asked to, and what follows."""

from __future__ import annotations

from tests.app.starting import Start

SHUTDOWN = {"guest": True, "reason": "guest-shutdown"}


def test_it_ends_the_daemon(start: Start) -> None:
    server = start("-machine", "q35", "-m", "64M")
    monitor = server.monitor()
    assert monitor.execute("system_powerdown") == {"return": {}}
    assert monitor.read_event("POWERDOWN")
    assert monitor.read_event("SHUTDOWN")["data"] == SHUTDOWN
    assert monitor.at_end()
    assert server.wait() == 0


def test_with_no_shutdown_the_machine_stays(start: Start) -> None:
    server = start("-machine", "q35", "-m", "64M", "-no-shutdown")
    monitor = server.monitor()
    monitor.execute("system_powerdown")
    assert monitor.read_event("SHUTDOWN")["data"] == SHUTDOWN
    monitor.read_event("STOP")
    status = monitor.execute("query-status")["return"]
    assert status == {"running": False, "status": "shutdown"}
    assert "Resetting" in monitor.execute("cont")["error"]["desc"]
    monitor.execute("system_reset")
    assert monitor.execute("cont") == {"return": {}}


def test_one_that_stands_still_does_so_when_it_goes_on(start: Start) -> None:
    server = start("-machine", "q35", "-m", "64M", "-S")
    monitor = server.monitor()
    monitor.execute("system_powerdown")
    assert monitor.execute("query-status")["return"]["status"] == "prelaunch"
    monitor.execute("cont")
    assert monitor.read_event("SHUTDOWN")["data"] == SHUTDOWN
    assert server.wait() == 0


def test_one_that_does_not_react_stays(start: Start) -> None:
    for options in (("-machine", "q35", "-m", "64M", "-guest-reacts", "refuses"), ()):
        monitor = start(*options).monitor()
        assert monitor.execute("system_powerdown") == {"return": {}}
        assert monitor.execute("query-status")["return"]["status"] == "running"
        assert [event["event"] for event in monitor.events] == ["POWERDOWN"]


def test_the_human_monitor_has_it_too(start: Start) -> None:
    monitor = start().monitor()
    answer = monitor.execute("human-monitor-command", {"command-line": "system_reset"})
    assert answer == {"return": ""}
    assert [event["event"] for event in monitor.events] == ["RESET"]
    answer = monitor.execute("human-monitor-command", {"command-line": "system_wakeup"})
    assert answer == {"return": "Error: wake-up from suspend is not supported by this guest\r\n"}
