"""Templates: the store, and the processes that serve their pages to clones."""
