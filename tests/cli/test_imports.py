"""Commands import no more than they need: what takes seconds is not waited for in vain."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torch._dynamo", "diffusers", "transformers", "sqlalchemy", "fastapi", "av")

CHILD = """
import contextlib, io, sys
from entracte.cli.main import run
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    try:
        run(sys.argv[2:])
    except SystemExit:
        pass
print(*(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


def imported(*command: str, of: tuple[str, ...] = HEAVY) -> set[str]:
    """Which modules a command has imported when it ends."""
    argv = [sys.executable, "-c", CHILD, ",".join(of), *command]
    child = subprocess.run(argv, capture_output=True, text=True, check=True)
    return set(child.stdout.split())


def test_help_imports_no_library() -> None:
    assert imported("--help", of=(*HEAVY, "pydantic", "rich")) == set()


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "--help"),
        ("generate", "A street", "--model", "./nowhere"),
        ("generate", "A street", "--num-frames", "10"),
        ("plan", "--help"),
        ("serve", "--help"),
    ],
    ids=" ".join,
)
def test_help_and_wrong_paths_do_without_torch(command: tuple[str, ...]) -> None:
    assert imported(*command) == set()


@pytest.mark.slow
def test_a_plan_needs_torch_alone() -> None:
    """diffusers and transformers are for models that are built, torch's compiler for kernels."""
    assert imported("plan", "--gpu", "rtx-4090") <= {"torch", "av"}


@pytest.mark.slow
def test_the_package_is_imported_at_once() -> None:
    code = "import sys, entracte; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    argv = [sys.executable, "-c", code]
    assert subprocess.run(argv, capture_output=True, text=True).stdout.split() == ["False"] * 2
