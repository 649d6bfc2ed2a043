"""The `entracte` command, one file a subcommand."""
