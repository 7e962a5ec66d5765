from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi import load_schema

GIVEN = {"qom-type": "monitor-qmp", "id": "m0", "chardev": "c0"}


TYPE = "MonitorObjectOptions"
SCHEMA = load_schema(Compat.V11_1)


def test_every_spelling_means_the_same() -> None:
    expected = {**GIVEN, "pretty": True, "close-action": "delete"}
    written = {**GIVEN, "pretty": "on", "close-action": "delete"}
    assert SCHEMA.check_opts(TYPE, list(written.items())) == expected
    assert SCHEMA.check_keyval(TYPE, written) == expected
    assert SCHEMA.check(TYPE, expected) == expected


def test_refused() -> None:
    with pytest.raises(QMPError) as caught:
        SCHEMA.check_opts(TYPE, [(key, value) for key, value in GIVEN.items() if key != "chardev"])
    assert caught.value.desc == "Parameter 'chardev' is missing"
    with pytest.raises(QMPError) as caught:
        SCHEMA.check_opts(TYPE, [*GIVEN.items(), ("close-action", "x")])
    assert caught.value.desc == "Parameter 'close-action' does not accept value 'x'"
    with pytest.raises(QMPError) as caught:
        SCHEMA.check_opts(TYPE, [*GIVEN.items(), ("foo", "x")])
    assert caught.value.desc == "Invalid parameter 'foo'"
    with pytest.raises(QMPError) as caught:
        SCHEMA.check(TYPE, {**GIVEN, "pretty": "x"})
    assert caught.value.desc == "Invalid parameter type for 'pretty', expected: boolean"
    with pytest.raises(QMPError) as caught:
        SCHEMA.check_keyval(TYPE, {**GIVEN, "foo": "x"})
    assert caught.value.desc == "Parameter 'foo' is unexpected"
