"""How much one message may hold before it is refused, with units.

Observed on QEMU 10.0.2 and 11.1.3, which agree. They bound what a client that
never ends its message can make the daemon hold.
"""

from __future__ import annotations

MAX_NESTING = 1024
"""Open braces and brackets together."""

MAX_TOKEN_COUNT = 2_097_152
"""Tokens (brackets, commas, strings, ...) in one message."""

MAX_TOKEN_BYTES = 67_108_863
"""Bytes of all tokens in one message, white space between them not counted."""

MAX_OPEN_TOKEN_BYTES = 67_108_864
"""Bytes of a token whose end has not come yet, its opening quote included."""

MAX_MESSAGE_TEXT = 1023
"""Bytes of an error's own text, after "JSON parse error, "."""

MAX_STRAY_TEXT = 65_536
"""Bytes of "stray '...'" in 10.0, which does not cut this one text: it repeats up to 64 MiB,
escaped six times as long, and nobody else is answered meanwhile. memd cuts it here."""

NESTING_EXCEEDED = "JSON nesting depth limit exceeded"
TOKEN_COUNT_EXCEEDED = "JSON token count limit exceeded"
TOKEN_SIZE_EXCEEDED = "JSON token size limit exceeded"
