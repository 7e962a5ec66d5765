from __future__ import annotations

from memd.errors import QMPError, command_not_found, device_not_found


def test_a_refusal_is_generic_unless_said() -> None:
    refusal = QMPError("no such luck", hint="try again")
    assert (refusal.error_class, refusal.desc, refusal.hint) == (
        "GenericError",
        "no such luck",
        "try again",
    )
    assert str(refusal) == "no such luck"


def test_the_classes_that_clients_tell_apart() -> None:
    """QAPI's `QapiErrorClass`, as far as the daemon gives them."""
    assert command_not_found("x").error_class == "CommandNotFound"
    assert device_not_found("x").error_class == "DeviceNotFound"
    assert device_not_found("x").hint is None
