"""`entracte jobs`: the service's videos, for its operator."""

import argparse
import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console

from entracte.errors import RequestError
from entracte.units import size

from .data import add_data_folder, open_data, serve_settings
from .parser import at_least_zero, whole
from .tables import add_row, plain_table
from .terminal import say

if TYPE_CHECKING:
    from entracte.serve.files import Files
    from entracte.serve.jobs.job import Job
    from entracte.serve.jobs.store import JobStore

DAY = 86_400.0
MOST_LISTED = 1_000_000

# Ids are never truncated: other commands need them.
TABLE_WIDTH = 120


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "jobs",
        description="The jobs of a service, of all keys. A running server applies changes at once. "
        "Prompts are shown only where they are asked for.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="the newest jobs")
    listed.add_argument(
        "--limit",
        type=whole(1, MOST_LISTED),
        default=20,
        metavar="N",
        help="how many (default: 20)",
    )
    show = actions.add_parser("show", help="everything about a job")
    show.add_argument("id", metavar="ID", help="video_…")
    show.add_argument("--prompt", action="store_true", help="include its prompt")
    cancel = actions.add_parser("cancel", help="stop a job at its next step")
    cancel.add_argument("id", metavar="ID", help="video_…")
    prune = actions.add_parser("prune", help="delete finished jobs and their files")
    prune.add_argument(
        "--older-than",
        type=at_least_zero,
        default=0.0,
        metavar="DAYS",
        help="only jobs that finished more than this many days ago (default: all)",
    )
    prune.add_argument("--failed", action="store_true", help="only failed ones")
    prune.add_argument("--dry-run", action="store_true", help="only list what would be deleted")
    for action, do in ((listed, _list), (show, _show), (cancel, _cancel), (prune, _prune)):
        add_data_folder(action)
        action.add_argument("--json", action="store_true", help="print the outcome as JSON")
        action.set_defaults(run=do)


def _open(options: argparse.Namespace) -> "tuple[Files, JobStore]":
    from entracte.serve.files import open_files
    from entracte.serve.jobs.outbox import Outbox
    from entracte.serve.jobs.store import JobStore

    settings = serve_settings(options)
    folder, database = open_data(settings)
    return open_files(folder, settings.storage), JobStore(
        database, Outbox(database, settings.webhook_url)
    )


def _find(store: "JobStore", video_id: str) -> "Job":
    job = store.find(video_id)
    if job is None:
        raise RequestError(
            f"there is no job {video_id}; `entracte jobs list` shows those there are"
        )
    return job


def _list(options: argparse.Namespace) -> None:
    _, store = _open(options)
    jobs = store.page(None, None, options.limit)
    if options.json:
        print(json.dumps({"jobs": [_as_json(job) for job in jobs]}))
        return
    table = plain_table("id", "status", "progress", "stage", "size", "seconds", "asked for")
    for job in jobs:
        status = f"{job.status} ({job.error_code})" if job.error_code else job.status
        stage = (job.stage or "") if not job.ended else ""
        asked = datetime.fromtimestamp(job.created_at).strftime("%Y-%m-%d %H:%M:%S")
        add_row(table, job.id, status, f"{job.progress} %", stage, job.size, job.seconds, asked)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table if jobs else "There are no jobs.")


def _show(options: argparse.Namespace) -> None:
    _, store = _open(options)
    found = _as_json(_find(store, options.id), options.prompt)
    if options.json:
        print(json.dumps(found))
        return
    table = plain_table("name", "value", header=False)
    for name, value in found.items():
        add_row(table, name, value if isinstance(value, str) else json.dumps(value))
    Console().print(table)


def _cancel(options: argparse.Namespace) -> None:
    files, store = _open(options)
    job = store.cancel(_find(store, options.id))
    status = "gone" if job is None else job.status
    if status == "failed":
        files.remove(options.id)  # its images
    if options.json:
        print(json.dumps({"id": options.id, "status": status}))
    elif status == "in_progress":
        print("it will stop at its next step")
    else:
        say(f"it is {status}")


def _prune(options: argparse.Namespace) -> None:
    files, store = _open(options)
    jobs = store.ended(options.older_than * DAY, failed_only=options.failed)
    if not options.dry_run:
        for job in jobs:
            store.delete(job, files.remove)
    freed = sum(job.bytes or 0 for job in jobs)
    if options.json:
        print(json.dumps({"deleted": [job.id for job in jobs], "bytes": freed}))
    else:
        word = "would delete" if options.dry_run else "deleted"
        print(f"{word} {len(jobs)} jobs, {size(freed)} of video")


def _as_json(job: "Job", with_prompt: bool = False) -> dict[str, Any]:
    found = asdict(job)
    hidden = ("number", "fingerprint", "idempotency_key", "deleted")
    for name in hidden if with_prompt else (*hidden, "prompt"):
        del found[name]
    if not with_prompt:
        found["settings"] = {k: v for k, v in job.settings.items() if k != "negative_prompt"}
    return found
