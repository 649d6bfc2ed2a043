"""One file a stage, in the order of the run.

A stage takes the state it needs and returns what it adds. It never owns weights: it is given the
components that it uses.
"""
