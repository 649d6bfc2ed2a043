"""Models made up: for demonstrations, tests and benchmarks."""
