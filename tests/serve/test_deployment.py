"""The unit file and the Dockerfile: what they name exists."""

import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from entracte.config.serve import ServeSettings
from entracte.serve.http.connections import most_connections
from entracte.serve.server import require_shared
from tests.command_line import parser
from tests.serve.running import PATIENCE

from .documented import ROOT

UNIT = ROOT / "deploy" / "entracte.service"
COMPOSE = ROOT / "deploy" / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
IGNORED = ROOT / "deploy" / "Dockerfile.dockerignore"

# How long a worker and open connections may take once videos have had their time.
AFTER_DRAINING = 13


def joined(path: Path) -> str:
    """Its text, with lines that go on put together, and without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


@pytest.fixture
def unit() -> ConfigParser:
    read = ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string(joined(UNIT))
    return read


def test_the_unit_starts_what_there_is(unit: ConfigParser) -> None:
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "entracte"
    told = parser().parse_args(arguments)
    assert told.data_folder == f"/var/lib/{unit['Service']['StateDirectory']}"
    patience = float(told.drain_seconds) + AFTER_DRAINING
    assert int(unit["Service"]["TimeoutStopSec"]) > patience


def test_the_unit_is_careful(unit: ConfigParser) -> None:
    service = unit["Service"]
    assert service["KillMode"] == "mixed"  # workers are told by the server
    assert service["RestartPreventExitStatus"] == "2"
    connections = ServeSettings.model_fields["max_connections"].default
    assert most_connections(connections, int(service["LimitNOFILE"])) == connections
    assert service["User"] not in ("", "root")
    assert (service["ProtectSystem"], service["CapabilityBoundingSet"]) == ("strict", "")
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID"):
        assert service[name] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path, unit: ConfigParser) -> None:
    copy = tmp_path / UNIT.name
    program = unit["Service"]["ExecStart"].split()[0]
    copy.write_text(UNIT.read_text().replace(program, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_dockerfile_names_what_there_is() -> None:
    text = joined(DOCKERFILE)
    variables = re.findall(r"ENTRACTE_(\w+)=", text)
    assert len(variables) == 4
    assert {name.lower() for name in variables} <= ServeSettings.model_fields.keys()
    [command] = re.findall(r"^CMD \[(.*)\]$", text, re.MULTILINE)
    parser().parse_args(re.findall(r'"(.+?)"', command))
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for name in names)
    let_through = set(re.findall(r"^!(.+)$", IGNORED.read_text(), re.MULTILINE))
    assert names == let_through
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


def test_the_composed_fleet_is_what_there_is() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name in ("server", "worker"):
        told = parser().parse_args(services[name]["command"].split())
        assert told.run is not None
        variables = services[name]["environment"]
        ours = {each.removeprefix("ENTRACTE_") for each in variables if "ENTRACTE_" in each}
        assert {each.lower() for each in ours} <= ServeSettings.model_fields.keys()
        require_shared(ServeSettings(database=variables["ENTRACTE_DATABASE"]))
        waits_for = services[name]["depends_on"]
        assert waits_for.keys() <= services.keys()
