"""`entracte generate`: a video with sound from a prompt."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from entracte.config.generate import GenerateSettings
from entracte.config.opening import check_model, follow_if_launched, open_engine
from entracte.config.reading import read_settings
from entracte.config.residency import build_residency
from entracte.request_fields import MAX_SEED

from .flags import add_settings, given_settings
from .orders import MOST_VIDEOS, read_orders
from .overwrite import require_absent
from .parser import whole
from .terminal import say

EPILOG = """\
Examples:
  entracte generate "A lighthouse at dusk, waves, a foghorn" --model DIR
  entracte generate "It starts to rain" --image photo.jpg --size 1280x720 --seconds 5
  entracte generate "A street" --count 4 --output-path street.mp4
  entracte generate --prompts tonight.txt --output-path videos/
  entracte generate --like street-2.mp4 --num-inference-steps 50

Every flag but the last of the output's is also an environment variable (ENTRACTE_SEED) and a
key of the settings file (seed) named by ENTRACTE_CONFIG, or config.toml in the user's
configuration folder. Flags win over the environment, it over the file.
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "generate",
        usage="entracte generate PROMPT [options]",
        description="Make a video with sound from a prompt, and from images if given. The prompt "
        "stands first, in quotes.",
        epilog=EPILOG,
        free="prompt",
    )
    groups = add_settings(parser, GenerateSettings)
    several = groups["request"]
    several.add_argument(
        "--seeds",
        nargs="+",
        type=whole(0, MAX_SEED),
        metavar="N",
        help="a video for each of these seeds",
    )
    several.add_argument(
        "--count",
        type=whole(1, MOST_VIDEOS),
        default=1,
        metavar="N",
        help="so many videos, with consecutive seeds",
    )
    several.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="a video for each line: a prompt, or in a .jsonl any of these fields",
    )
    several.add_argument(
        "--like", type=Path, metavar="VIDEO", help="with the settings that a video was made with"
    )
    output = groups["output"]
    output.add_argument("--force", action="store_true", help="overwrite existing files")
    output.add_argument("--stages", action="store_true", help="show what every stage took")
    output.add_argument("--quiet", action="store_true", help="print errors only")
    output.add_argument(
        "--json",
        action="store_true",
        help="print each result, or the error, as a JSON object in a line",
    )
    output.add_argument(
        "--warmup",
        action="store_true",
        help="run twice first, and correct the plan with the measured times",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    follow_if_launched()
    check_model(read_settings(GenerateSettings, given_settings(GenerateSettings, options)))
    orders = read_orders(options)
    settings = orders[0].settings
    silent = options.quiet or options.json
    residency = build_residency(settings)

    from .console import print_stage_table, progress_view
    from .tracing import check_trace_outputs, trace_options, write_trace_outputs

    files = [settings.latents_path, settings.perf_dump_path, settings.trace_path]
    extra = [path for path in files if path is not None]
    check_trace_outputs(settings)
    for path in [*(order.output for order in orders), *extra]:
        require_absent(path, options.force, may_ask=not silent)

    with progress_view(hidden=silent) as bar:
        from entracte.checkpoints.hub import hide_progress
        from entracte.planner.decision import describe

        from .summary import plan_json, result_lines, summarise

        if silent:
            hide_progress()
        with open_engine(settings, residency, settings.devices) as engine:
            if not silent:
                for note in engine.source.notes:
                    say(note)
            traced = trace_options(settings, engine)
            if options.warmup:
                engine.warm_up(orders[0].request)
            for number, order in enumerate(orders, start=1):
                result = engine.generate(
                    order.request,
                    output_path=order.output,
                    latents_path=settings.latents_path,
                    progress=bar.update,
                    keep_frames=False,
                    trace=traced,
                    metadata=settings.metadata,
                )
                summary = summarise(result)
                summary["settings"]["mode"] = residency.mode
                summary["notes"] = list(engine.source.notes)
                decision = result.decision
                if decision is None and (options.json or settings.perf_dump_path is not None):
                    decision = engine.plan(order.request)
                summary["plan"] = None if decision is None else plan_json(decision, result.trace)
                summary["residency"] = [asdict(row) for row in engine.residency()]
                meta = summary["settings"] | {name: summary[name] for name in ("plan", "residency")}
                write_trace_outputs(settings, result.trace, meta, result.followers)
                if options.json:
                    print(json.dumps(summary))
                elif not options.quiet:
                    if options.stages:
                        print_stage_table(result.trace)
                        if decision is not None:
                            chosen = decision.chosen
                            print(f"plan: {describe(chosen.prediction)}; {chosen.reason}")
                    of = f"[{number}/{len(orders)}] " if len(orders) > 1 else ""
                    for line in result_lines(result, order.output, residency.mode):
                        say(of + line)
                    for path in extra:
                        say(f"wrote {path}")
                sys.stdout.flush()
