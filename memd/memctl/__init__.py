"""`memctl`: the command-line client of a running memd."""
