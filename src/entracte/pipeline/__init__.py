"""The pipeline: from a request to a result.

A stage takes the state it needs and returns what it adds. It never owns weights: it borrows the
components that it uses.
"""
