"""What TLS is made of: objects that hold what files held when they were made."""

from __future__ import annotations

from memd.json_types import JSONObject
from memd.qom import NOBODY, Description, Tree, UserCreatable


class Credentials(UserCreatable):
    """An object whose files are read once; most properties count for nothing later."""

    tree: Tree

    def restoring(self, described: Description) -> JSONObject:
        """What it was made of counts, whatever was set later."""
        options: JSONObject = described["options"]
        return {name: value for name, value in options.items() if name not in ("qom-type", "id")}

    def relink(self, described: Description) -> None:
        """Show what was set later; see `UserCreatable.relink`."""
        # What the command line says of whom to trust, no client changes for good.
        if described["owner"] is not NOBODY:
            self.set_properties(described["properties"])


def is_credential(type_name: str) -> bool:
    """Whether objects of that type are what monitors may need, and so come before them."""
    return type_name.startswith(("tls-creds", "secret"))
