"""`memctl`: the people's tool, over the socket of a running memd."""
