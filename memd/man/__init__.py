"""The manual pages, made from what the programs themselves are made from."""
