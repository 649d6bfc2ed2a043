"""Fixtures that several folders share. Imports that take seconds are within the functions of every
`conftest.py`: xdist's controller reads them too, and runs no test; and Triton is imported after
`TRITON_INTERPRET` is set here.
"""

import gc
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser.chromium import CHROMIUM, MISSING
from .serve.postgresql import NO_POSTGRESQL, Postgresql, programs

collect_ignore = [] if CHROMIUM.exists() else ["browser"]

# How many examples hypothesis tries where a test does not say.
EXAMPLES, EXAMPLES_SLOW = 30, 150


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):
        return  # xdist's controller
    if "triton" in sys.modules:
        raise pytest.UsageError("a conftest.py imports Triton: import it within its functions")
    gc.disable()  # until all is imported; nothing of that is garbage
    # Triton counts its objects at the end. pytest's own collections come before this.
    config.add_cleanup(gc.unfreeze)
    import torch
    from hypothesis import settings

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
    # Tests run beside each other, and their tensors are small.
    torch.set_num_threads(1)
    examples = EXAMPLES_SLOW if config.getoption("--slow") else EXAMPLES
    settings.register_profile("untimed", deadline=None, max_examples=examples)
    settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    _mark_samples(items)
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


def pytest_collection_finish(session: pytest.Session) -> None:
    # Looking through a million objects of torch and transformers at each collection takes longer
    # than many tests.
    gc.freeze()
    gc.enable()


def _mark_samples(items: list[pytest.Item]) -> None:
    """Mark the cases of a sampled test as slow, but for so many, evenly spread."""
    families: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("sampled"):
            families[item.nodeid.partition("[")[0]].append(item)
    for cases in families.values():
        mark = cases[0].get_closest_marker("sampled")
        assert mark is not None
        (kept,) = mark.args
        quick = {index * len(cases) // kept for index in range(kept)}
        for index, case in enumerate(cases):
            if index not in quick:
                case.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not CHROMIUM.exists():
        terminalreporter.section("no browser")
        terminalreporter.line(MISSING)
    if programs() is None:
        terminalreporter.section("no PostgreSQL")
        terminalreporter.line(NO_POSTGRESQL)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests of all workers keep the rates of this machine, so that it is measured once."""
    root = tmp_path_factory.getbasetemp()
    cache = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(autouse=True)
def _own_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> None:
    """No test reads the settings of whoever runs it, their cache, or the network."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("ENTRACTE_CACHE_DIR", str(shared_cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A server of this process. Tests take databases of their own."""
    if programs() is None:
        pytest.skip(NO_POSTGRESQL)
    with Postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model's folder. Tests must not change it."""
    from entracte.synthetic.demo import write_demo_model

    folder = tmp_path_factory.mktemp("demo-model")
    write_demo_model(folder)
    return folder
