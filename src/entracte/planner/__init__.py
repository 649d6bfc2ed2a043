"""The planner: predicts what every plan would cost on a machine, and picks the best."""
