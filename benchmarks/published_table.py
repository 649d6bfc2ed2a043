"""The planner's predictions beside a serving engine's published figures, for the same modes.

    python benchmarks/published_table.py [--height 512 --width 768]

The published resolution is not known. Times are milliseconds, memory is gigabytes. Below the table:
how long choosing a plan takes; work is metered for the first card only.
"""

import argparse
from time import process_time

from entracte.machine.cards import card
from entracte.planner.calibration import Calibration
from entracte.planner.candidates import Way
from entracte.planner.costs import costs
from entracte.planner.decision import decide
from entracte.planner.limits import limits_of
from entracte.planner.model_profile import published
from entracte.planner.prediction import predict
from entracte.planner.transformer_work import TransformerMeter
from entracte.planner.workload import Workload
from entracte.residency import AUTO, BASE, Adapter, Residency, WeightPhase, WeightSet

# Mode: card, our way, and the published switch, denoising, refinement and peak memory.
PUBLISHED = {
    "legacy": ("h200", Way("original", "low-vram", 48, 0), 126.9, 13388, 804, 58.01),
    "snapshot low-vram": (
        "h100-80gb",
        Way("snapshot", "low-vram", 48, 0),
        0.02,
        14257,
        2850,
        57.22,
    ),
    "snapshot aggressive": ("h200", Way("snapshot", "aggressive", 48, 0), 0.01, 10341, 1333, 95.12),
    "resident": ("h200", Way("resident", "low-vram", 48, 0), 0.01, 8572, 884, 95.78),
}
PHASES = (WeightPhase(BASE, 30), WeightPhase(WeightSet((Adapter("distilled", 1.0),)), 3))
# The text encoder passes through the device, and everything else is on it.
PLACES = {"text_encoder": "streamed"}
CHOSEN_FOR = ("h200", "a100-40gb", "rtx-5090", "rtx-4090")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=768)
    options = parser.parse_args()
    model = published("ltx-2.3")
    load = Workload.of_sizes(
        layers=48, height=options.height, width=options.width, guidance_batch=4
    )
    transformer = TransformerMeter.of(model)
    heads = ["mode", "card", "switch", "", "denoise", "", "refine", "", "peak GB", ""]
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    print("| | |" + " published | predicted |" * 4)
    for mode, (name, way, switch, denoise, refine, peak) in PUBLISHED.items():
        c = costs(model, load, PHASES, card(name, 256 * 2**30), Calibration(), transformer)
        p = predict(c, way, PLACES)
        stages = {stage.name: stage.seconds * 1e3 for stage in p.stages}
        cells = [mode, name, switch, f"{p.switch_s * 1e3:.1f}"]
        cells += [denoise, f"{stages['denoise']:.0f}", refine, f"{stages['refine']:.0f}"]
        cells += [peak, f"{p.peak_device_bytes / 1e9:.1f}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    print()
    wanted, new = Residency(AUTO), TransformerMeter.of(model)
    for name in CHOSEN_FOR:
        hardware = card(name, 64 * 2**30)
        began = process_time()
        c = costs(model, load, PHASES, hardware, Calibration(), new)
        metered = process_time()
        decide(c, wanted, limits_of(hardware, wanted))
        times = f"metered in {metered - began:.2f} s, chosen in {process_time() - metered:.2f} s"
        print(f"{name}: {times}, of one core")


if __name__ == "__main__":
    main()
