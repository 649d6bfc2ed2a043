"""`entracte worker` with fake runners, as a process of its own."""

import json
import sys
from pathlib import Path

from entracte.serve.logs import process_log
from entracte.serve.node import Node
from entracte.serve.node_process import run_node

from .fake_runner import OpenFake
from .running import settings_for


def main() -> None:
    settings = settings_for(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    step_s = float(sys.argv[3])
    with process_log("json") as (log, _):
        run_node(Node(settings, lambda _: OpenFake(step_s=step_s), log))


if __name__ == "__main__":
    main()
