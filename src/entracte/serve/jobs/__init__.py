"""Jobs: what was asked for, how far it is, and how it ended, in a database that outlives us."""
