"""Jobs: requests, their progress and outcome, in a database that survives the server."""
