"""What the planner predicts beside what happens, on this machine, in every mode.

One request is run in mode `auto` to correct the table of computing times (a warm-up). Then every
mode is planned and run, with that calibration alone: the last of two requests is compared.

    python benchmarks/predictions.py [--model DIR] [--device auto] [--json FILE]
        [--height 256 --width 384 --num-frames 49 --steps 4]
"""

import argparse
import json
import tempfile
from pathlib import Path

from entracte import Engine, Request, Residency
from entracte.planner.decision import describe
from entracte.synthetic.demo import write_demo_model

WANTED = (
    Residency("resident"),
    Residency("fused"),
    Residency("fused", merged_blocks=2),
    Residency("fused", resident_blocks=0),
    Residency("snapshot"),
    Residency("snapshot", resident_blocks=0),
    Residency("snapshot", snapshot_policy="aggressive"),
    Residency("original"),
    Residency("resident", places={"text_encoder": "snapshot", "video_vae": "snapshot"}),
)


def measure(engine: Engine, request: Request, wanted: Residency) -> dict[str, object]:
    engine.configure(wanted)
    predicted = engine.plan(request).chosen.prediction
    for _ in range(2):
        result = engine.generate(request, keep_frames=False)
    stages = {stage.name: stage.seconds for stage in predicted.stages}
    took: dict[str, float] = {}
    for span in result.trace.spans:
        took[span.name] = took.get(span.name, 0.0) + span.seconds
    # The prompts are known by now, so their stages were not run.
    compared = [name for name in stages if name in took]
    waits = sum(took.get(f"switch to stage{n}", 0.0) for n in (1, 2)) + took["load weights"]
    held = sum(row.nbytes for row in engine.residency() if row.where == "device")
    always = min(sum(stage.weights.values()) for stage in predicted.stages)
    seconds = sum(took[name] for name in compared) + waits
    return {
        "plan": describe(predicted),
        "predicted_s": sum(stages[name] for name in compared),
        "measured_s": seconds,
        "predicted_bytes": always,
        "measured_bytes": held,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--num-frames", type=int, default=49)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            model = Path(folder)
            write_demo_model(model)
        request = Request(
            prompt="A quiet street",
            height=options.height,
            width=options.width,
            num_frames=options.num_frames,
            num_inference_steps=options.steps,
        )
        with Engine.open(model, device=options.device) as engine:
            engine.warm_up(request)
            rows = [measure(engine, request, wanted) for wanted in WANTED]
    print("| plan | predicted s | measured s | off | predicted MB | measured MB | off |")
    print("|---" * 7 + "|")
    for row in rows:
        ratios = [row[f"predicted_{what}"] / row[f"measured_{what}"] - 1 for what in ("s", "bytes")]
        print(
            f"| {row['plan']} | {row['predicted_s']:.2f} | {row['measured_s']:.2f} | "
            f"{ratios[0]:+.1%} | {row['predicted_bytes'] / 1e6:.1f} | "
            f"{row['measured_bytes'] / 1e6:.1f} | {ratios[1]:+.1%} |"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
