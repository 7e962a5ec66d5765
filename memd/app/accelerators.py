"""The accelerators that a command line asks for, and which of them this host has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memd.errors import StartError

if TYPE_CHECKING:
    from memd.config import Config


def choose_accelerator(config: Config) -> str:
    """The first of the accelerators asked for that this host has.

    Raises:
        StartError: it has none of them.
    """
    for number, name in enumerate(config.accels):
        refusal = _try_accelerator(name)
        if refusal is None:
            if number:
                config.report.error(f"falling back to {name}")
            return name
        for text in refusal[:-1]:
            config.report.error(text)
        if number + 1 == len(config.accels):
            raise StartError(refusal[-1])
        config.report.error(refusal[-1])
    return "tcg"


def _try_accelerator(name: str) -> list[str] | None:
    """Why an accelerator can't be used, in QEMU's words (10.0.2, 11.1.3), or None."""
    if name not in ("kvm", "mshv"):
        return None
    try:
        os.close(os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if name == "kvm":
            return [
                f"Could not access KVM kernel module: {reason}",
                f"failed to initialize kvm: {reason}",
            ]
        return [
            f"Failed to open /dev/mshv: {reason}",
            "failed to initialize mshv: Operation not permitted",
        ]
    return None
