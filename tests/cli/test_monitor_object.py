from __future__ import annotations

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi import load_schema
from memd.qapi.check import check_object
from memd.qapi.keyval import check_keyval
from memd.qapi.opts import check_opts

GIVEN = {"qom-type": "monitor-qmp", "id": "m0", "chardev": "c0"}


TYPE = load_schema(Compat.V11_1).object_type("MonitorObjectOptions")


def test_every_spelling_means_the_same() -> None:
    expected = {**GIVEN, "pretty": True, "close-action": "delete"}
    written = {**GIVEN, "pretty": "on", "close-action": "delete"}
    assert check_opts(TYPE, list(written.items())) == expected
    assert check_keyval(TYPE, written) == expected
    assert check_object(TYPE, expected) == expected


def test_refused() -> None:
    with pytest.raises(QMPError) as caught:
        check_opts(TYPE, [(key, value) for key, value in GIVEN.items() if key != "chardev"])
    assert caught.value.desc == "Parameter 'chardev' is missing"
    with pytest.raises(QMPError) as caught:
        check_opts(TYPE, [*GIVEN.items(), ("close-action", "x")])
    assert caught.value.desc == "Parameter 'close-action' does not accept value 'x'"
    with pytest.raises(QMPError) as caught:
        check_opts(TYPE, [*GIVEN.items(), ("foo", "x")])
    assert caught.value.desc == "Invalid parameter 'foo'"
    with pytest.raises(QMPError) as caught:
        check_object(TYPE, {**GIVEN, "pretty": "x"})
    assert caught.value.desc == "Invalid parameter type for 'pretty', expected: boolean"
    with pytest.raises(QMPError) as caught:
        check_keyval(TYPE, {**GIVEN, "foo": "x"})
    assert caught.value.desc == "Parameter 'foo' is unexpected"
