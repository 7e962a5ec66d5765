"""The options of the template store."""

from __future__ import annotations

import pytest

from memd.cli.options import parse_arguments
from memd.cli.report import CommandLineError
from memd.config import Report


def test_what_they_say() -> None:
    config = parse_arguments(
        [
            *("--templates", "/t", "--template-cache", "10G"),
            *("--template-source", "oci://h/r", "--template-source", "file:/x"),
        ],
        Report("memd"),
    )
    assert (config.templates, config.template_cache) == ("/t", 10 << 30)
    assert config.template_sources == ["oci://h/r", "file:/x"]


@pytest.mark.parametrize("option", [("--template-cache", "1G"), ("--template-source", "file:/x")])
def test_without_a_store_they_mean_nothing(option: tuple[str, str]) -> None:
    with pytest.raises(CommandLineError, match="need --templates DIR"):
        parse_arguments(option, Report("memd"))


def test_a_size_that_is_none() -> None:
    with pytest.raises(CommandLineError, match="Parameter 'template-cache' expects a size"):
        parse_arguments(["--templates", "/t", "--template-cache", "much"], Report("memd"))
