"""The `entracte` command, one file per subcommand."""
