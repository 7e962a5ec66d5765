from __future__ import annotations

import pytest

from memd.cli.monitor_object import check_json, check_keyval, check_opts
from memd.errors import QMPError

GIVEN = {"qom-type": "monitor-qmp", "id": "m0", "chardev": "c0"}


def test_every_spelling_means_the_same() -> None:
    expected = {**GIVEN, "pretty": True, "close-action": "delete"}
    written = {**GIVEN, "pretty": "on", "close-action": "delete"}
    assert check_opts(list(written.items())) == expected
    assert check_keyval(written) == expected
    assert check_json(expected) == expected


def test_refused() -> None:
    with pytest.raises(QMPError) as caught:
        check_opts([(key, value) for key, value in GIVEN.items() if key != "chardev"])
    assert caught.value.desc == "Parameter 'chardev' is missing"
    with pytest.raises(QMPError) as caught:
        check_opts([*GIVEN.items(), ("close-action", "x")])
    assert caught.value.desc == "Parameter 'close-action' does not accept value 'x'"
    with pytest.raises(QMPError) as caught:
        check_opts([*GIVEN.items(), ("foo", "x")])
    assert caught.value.desc == "Invalid parameter 'foo'"
    with pytest.raises(QMPError) as caught:
        check_json({**GIVEN, "pretty": "x"})
    assert caught.value.desc == "Invalid parameter type for 'pretty', expected: boolean"
    with pytest.raises(QMPError) as caught:
        check_keyval({**GIVEN, "foo": "x"})
    assert caught.value.desc == "Parameter 'foo' is unexpected"
