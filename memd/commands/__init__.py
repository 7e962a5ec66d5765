"""Commands: the dispatcher, and thin handlers by subject."""
