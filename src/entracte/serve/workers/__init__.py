"""Workers: the engine in a process of its own, and who looks after it."""
