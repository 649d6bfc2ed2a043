"""The service under load: a hundred clients, a bounded queue, and status requests meanwhile.

python benchmarks/serving.py [--model DIR | --random-weights medium|full] [--clients 100]
    [--videos 200] [--queue 20] [--size 256x256] [--frames 9] [--steps 4]

The server is a process of its own, with the real engine in a worker of its own. Every client asks
for videos until all were asked for or refused, and for the status of those that it was granted,
at random moments, on average once a second.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from entracte.errors import CheckpointError
from entracte.request import Request
from entracte.serve.workers.protocol import Runner

PAUSE = 1.0


@dataclass(frozen=True)
class OpenRandom:
    """Opens an engine with random weights, in the worker's process."""

    size: str
    folder: str
    usual: Request

    def __call__(self) -> Runner:
        from entracte.engine import DTYPES, Engine
        from entracte.machine.torch_device import pick_device
        from entracte.residency import open_backend
        from entracte.serve.workers.runner import EngineRunner
        from entracte.synthetic.random_model import SIZES, random_model

        for size in SIZES:
            if size == self.size:
                source = random_model(size, Path(self.folder))
                backend = open_backend(pick_device("auto"))
                return EngineRunner(Engine(source, backend, DTYPES["bfloat16"]), self.usual, True)
        raise CheckpointError(f"no random model is {self.size!r}")


@dataclass
class Seen:
    """What the clients saw."""

    granted: list[str] = field(default_factory=list)
    refused: int = 0
    retry_after: set[int] = field(default_factory=set)
    others: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


def serve(options: argparse.Namespace, folder: Path) -> None:
    """The server's process: listen at a free port, and print where."""
    from entracte.checkpoints.model_header import ModelHeader
    from entracte.config.opening import read_header
    from entracte.config.serve import ServeSettings
    from entracte.serve.logs import open_log
    from entracte.serve.server import bind, check, run
    from entracte.serve.service import Service
    from entracte.serve.submission import usual_request
    from entracte.serve.workers.engine_factory import OpenEngine

    settings = ServeSettings(
        model=options.model,
        data_folder=folder / "data",
        port=0,
        max_queued=options.queue,
        default_size=options.size,
        log_format="json",
    )
    check(settings)
    random = options.model is None
    model = ModelHeader("2.3", layers=48) if random else read_header(settings)
    usual = usual_request(settings, model)

    def runner_of(device: str) -> OpenEngine | OpenRandom:
        if random:
            return OpenRandom(options.random_weights, str(folder / "random"), usual)
        return OpenEngine(settings, device, usual, warm=True)

    with (folder / "log").open("w") as log:
        service = Service(settings, model, runner_of, open_log("json", log))
        _, key = service.keys.add("benchmark")
        listener = bind(settings)
        said = json.dumps({"port": listener.getsockname()[1], "key": key})
        run(service, listener, lambda: print(said, flush=True))


async def load(client: httpx2.AsyncClient, options: argparse.Namespace, pid: int) -> Seen:
    seen, left = Seen(), iter(range(options.videos))
    fields = {
        "prompt": "A lighthouse at dusk",
        "size": options.size,
        "num_frames": options.frames,
        "num_inference_steps": options.steps,
    }
    process, done = psutil.Process(pid), asyncio.Event()

    async def ask(number: int) -> None:
        chance = random.Random(number)
        mine: list[str] = []
        while True:
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE))
            if next(left, None) is not None:
                answer = await client.post("/v1/videos", json=fields | {"seed": number})
                if answer.status_code == 200:
                    mine.append(answer.json()["id"])
                    seen.granted.append(mine[-1])
                elif answer.status_code == 429:
                    seen.refused += 1
                    seen.retry_after.add(int(answer.headers["retry-after"]))
                else:
                    seen.others.append(answer.status_code)
            elif not mine:
                return
            for video in list(mine):
                begun = time.perf_counter()
                answer = await client.get(f"/v1/videos/{video}")
                seen.seconds.append(time.perf_counter() - begun)
                if answer.status_code != 200:
                    seen.others.append(answer.status_code)
                if answer.json().get("completed_at") is not None:
                    mine.remove(video)

    async def watch() -> None:
        while not done.is_set():
            seen.memory.append(process.memory_info().rss)
            await asyncio.sleep(PAUSE)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(ask, range(options.clients)))
    done.set()
    await watching
    return seen


async def measure(options: argparse.Namespace, port: int, key: str, pid: int) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx2.Limits(max_connections=options.clients)
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as c:
        while (await c.get("/health")).status_code != 200:
            await asyncio.sleep(0.5)
        begun = time.perf_counter()
        seen = await load(c, options, pid)
        took = time.perf_counter() - begun
        videos = await all_videos(c)
        metrics = (await c.get("/metrics")).text
    made = {
        name: float(line.split()[1])
        for line in metrics.splitlines()
        for name in ("sum", "count")
        if line.startswith(f"entracte_video_seconds_{name}")
    }
    each = made["sum"] / made["count"]
    rows = report(seen, videos) | {
        "seconds in all": f"{took:.1f}",
        "seconds a video": f"{each:.3f}",
        "seconds between one and the next, all told": f"{took / made['count'] - each:.3f}",
    }
    for what, value in rows.items():
        print(f"| {what} | {value} |")


async def all_videos(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """In the order in which they were granted."""
    videos: list[dict[str, Any]] = []
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"]:
        after = {"after": page["last_id"]} if videos else {}
        answer = await client.get("/v1/videos", params={"order": "asc", "limit": 100} | after)
        page = answer.json()
        videos += page["data"]
    return videos


def report(seen: Seen, videos: list[dict[str, Any]]) -> dict[str, str]:
    """Rows of a table."""
    seconds = sorted(seen.seconds)

    def ms(part: float) -> str:
        return f"{seconds[min(len(seconds) - 1, int(part * len(seconds)))] * 1e3:.1f}"

    statuses = [video["status"] for video in videos]
    ends = [video["completed_at"] for video in videos]
    third = seen.memory[len(seen.memory) // 3] / 2**20
    least, most = min(seen.retry_after, default=0), max(seen.retry_after, default=0)
    return {
        "what": "value",
        "---": "---",
        "videos granted": str(len(videos)),
        "videos refused with 429": str(seen.refused),
        "other answers": str(len(seen.others)),
        "completed": str(statuses.count("completed")),
        "ended in the order in which they were granted": str(ends == sorted(ends)),
        "Retry-After, seconds": f"{least} to {most}",
        "status requests": str(len(seconds)),
        "status requests, ms: median, p99, longest": f"{ms(0.5)}, {ms(0.99)}, {ms(1)}",
        "server's memory, MiB: after a third, at the end": (
            f"{third:.0f}, {seen.memory[-1] / 2**20:.0f}"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--random-weights", choices=("full", "medium"), default="medium")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--queue", type=int, default=20)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        serve(options, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, __file__, *sys.argv[1:], "--folder", folder]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            said = json.loads(server.stdout.readline())
            try:
                asyncio.run(measure(options, said["port"], said["key"], server.pid))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
