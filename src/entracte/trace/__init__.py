"""Where the time of a generation went."""
