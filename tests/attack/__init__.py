"""A model that attacks the daemon: `python -m tests.attack --minutes 60`."""
