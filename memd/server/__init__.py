"""Sockets and the event loop: listening, connections, worker threads."""
