"""Files on disk to components."""
