"""A JSON value's type."""

from typing import Any

JSON = Any
"""A JSON value: dict, list, str, int, float, bool or None."""

JSONObject = dict[str, Any]
"""An object of JSON: its members, by name."""
