"""A server without HTTP, to be killed: takes the queue of a folder and works it off."""

import json
import sys
import threading
from io import StringIO
from pathlib import Path

from entracte.serve.logs import open_log
from entracte.serve.service import Service

from .fake_runner import OpenFake
from .running import LTX_2_3, settings_for


def main() -> None:
    settings = settings_for(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    log = open_log("json", StringIO())
    service = Service(settings, LTX_2_3, lambda _: OpenFake(step_s=0.02), log)
    service.start()
    print("started", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
