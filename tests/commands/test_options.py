"""`query-command-line-options`."""

from __future__ import annotations

from tests.commands.fakes import Console


def test_one_option_all_options_and_none() -> None:
    console = Console()
    every = console("query-command-line-options")
    assert {"object", "mon", "chardev", "name"} <= {each["option"] for each in every}
    assert console("query-command-line-options", option="object") == [
        {"option": "object", "parameters": []}
    ]
    (memory,) = console("query-command-line-options", option="memory")
    assert {"name": "maxmem", "type": "size"} in memory["parameters"]
    (mon,) = console("query-command-line-options", option="mon")
    assert {"name": "pretty", "type": "boolean"} in mon["parameters"]
    assert console.refusal("query-command-line-options", option="foo") == (
        "GenericError",
        "invalid option name: foo",
    )
