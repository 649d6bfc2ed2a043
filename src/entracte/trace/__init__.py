"""Where the time of a generation went, and where its weights were."""
