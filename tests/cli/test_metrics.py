"""The address that --metrics names."""

from __future__ import annotations

import pytest

from tests.cli.lines import config, memd


@pytest.mark.parametrize(
    ("text", "kind", "path", "host", "port"),
    [
        ("unix:/run/x", "unix", "/run/x", "", ""),
        ("127.0.0.1:9100", "tcp", "", "127.0.0.1", "9100"),
        (":9100", "tcp", "", "", "9100"),
        ("[::1]:0", "tcp", "", "::1", "0"),
    ],
)
def test_addresses(text: str, kind: str, path: str, host: str, port: str) -> None:
    found = config(memd("--metrics", text)).metrics
    assert found is not None
    assert (found.kind, found.path, found.host, found.port) == (kind, path, host, port)
    assert found.server


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unix:", "a path is missing after 'unix:'"),
        ("9100", "'9100' is neither unix:PATH nor HOST:PORT"),
        ("host:http", "'host:http' is neither unix:PATH nor HOST:PORT"),
        ("host:65536", "'host:65536' is neither unix:PATH nor HOST:PORT"),
    ],
)
def test_no_address(text: str, said: str) -> None:
    outcome = memd("--metrics", text)
    assert outcome.status == 1
    assert said in outcome.stderr


def test_none() -> None:
    assert config(memd()).metrics is None
