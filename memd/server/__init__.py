"""Sockets and the event loop: listening, connections, work beside the loop."""
