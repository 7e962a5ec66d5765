"""A process that stores, changes and deletes templates until it is killed: DIRECTORY SEED."""

from __future__ import annotations

import random
import sys

from memd.errors import QMPError
from memd.pages.store import Store
from tests.pages.memory import save

PAGE = 4096
PAGES = 96


def content(name: str) -> bytes:
    """What a template of that name holds; those whose names begin alike are much alike."""
    data = bytearray(random.Random(name[:2]).randbytes(PAGES * PAGE))
    chance = random.Random(name)
    for page in chance.sample(range(PAGES), 6):
        data[page * PAGE : (page + 1) * PAGE] = chance.randbytes(PAGE)
    for page in chance.sample(range(PAGES), 6):
        data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    return bytes(data)


def main() -> None:
    """Be busy."""
    chance = random.Random(sys.argv[2])
    store = Store(sys.argv[1])
    print("ready", flush=True)
    while True:
        name = f"t{chance.randint(0, 2)}{chance.randint(0, 3)}"
        there = store.names()
        if name not in there:
            base = chance.choice([None, *there])
            save(store, name, content(name), base, devices=name.encode())
        elif chance.random() < 0.4:
            store.set_working_set(name, chance.sample(range(PAGES), 20))
        else:
            try:
                store.delete(name)
            except QMPError:
                continue


if __name__ == "__main__":
    main()
