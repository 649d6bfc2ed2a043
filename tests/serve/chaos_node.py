"""A server or a worker of a fleet, with fake runners and short leases, to be killed."""

import sys

from entracte.serve import node
from entracte.serve.workers import supervisor

from . import fake_server, fake_worker

LEASE_SECONDS = 8.0

if __name__ == "__main__":
    supervisor.LEASE_SECONDS = node.LEASE_SECONDS = LEASE_SECONDS
    role = sys.argv.pop(1)
    (fake_server if role == "server" else fake_worker).main()
