"""How the demonstration model was trained: data, losses, and a command for every component.

Plain PyTorch, outside the installed package. `training/README.md` says what was run, and how to go
on.
"""
