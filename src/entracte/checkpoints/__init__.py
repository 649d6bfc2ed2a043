"""From files to components."""
