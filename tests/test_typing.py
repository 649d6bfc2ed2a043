"""What users write passes their type checkers."""

import re
from pathlib import Path

import pytest
from mypy import api

README = Path(__file__).parent.parent / "README.md"

REQUESTS = """
from fractions import Fraction
from pathlib import Path

from entracte import Engine, Guidance, ImageCondition, LoraSpec, Request

Request("a lighthouse")
Request(prompt="a lighthouse", height=None, seed=7, frame_rate=Fraction(24000, 1001))
Request("a", images=[ImageCondition("first.png"), ImageCondition(Path("b.png"), frame=8)])
Request("a", image=b"", size="1280x720", seconds=5, loras=["style.safetensors"])
engine = Engine.open("model", mode="fused", device_memory="24GiB")
result = engine.generate("a lighthouse", image="first.png", seconds=4, size="768x512")
seeds: list[int] = [each.seed for each in engine.generate(["a", "b"], seed=3)]
result.save("a.mp4").stat()
Request("a", loras=(LoraSpec("style.safetensors", 0.7),), video_guidance=Guidance(cfg=4.0))
height: int | None = Request("a").model_copy(update={"seed": 4}).height
"""

WRONG = """
from entracte import Request

Request()
Request("a", heigth=128)
Request("a", height="tall")
Request("a", "two-stage")
"""


@pytest.mark.slow
def test_readme_and_requests_pass_mypy(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (readme,) = [block for block in blocks if "from entracte import" in block]
    for name, code in (("readme", readme), ("requests", REQUESTS), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(code)
    out, err, _ = api.run([str(path) for path in sorted(tmp_path.glob("*.py"))])
    assert err == ""
    errors = [line for line in out.splitlines() if ": error:" in line]
    assert [line for line in errors if "wrong.py" not in line] == []
    assert {int(line.split(":")[1]) for line in errors} == {4, 5, 6, 7}
