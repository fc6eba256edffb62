# SPDX-License-Identifier: MIT
"""`docs/outside.md`: its unit and its pod are what systemd, YAML and we can read."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ometrics.cli.serve import serve

DOCUMENT = Path(__file__).parents[2] / "docs" / "outside.md"
TEXT = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""

pytestmark = pytest.mark.skipif(not TEXT, reason="needs the source tree")


def block(language: str) -> str:
    """The only block of a language."""
    pattern = rf"^```{language}\n(.*?)^```"
    found: list[str] = re.findall(pattern, TEXT, re.MULTILINE | re.DOTALL)
    assert 1 == len(found)
    return found[0]


def given(command: list[str]) -> dict[str, Any]:
    """What `ometrics serve` understands of a command line."""
    assert ["ometrics", "serve"] == command[:2]
    return serve.make_context("serve", command[2:]).params


def test_the_pod() -> None:
    """Two containers of one user share the directory; the command line is one."""
    pod = yaml.safe_load(block("yaml"))
    agent, sidecar = pod["spec"]["containers"]
    (variable,) = agent["env"]
    options = given([*sidecar["command"], *sidecar["args"]])
    (port,) = sidecar["ports"]

    assert agent["volumeMounts"] == sidecar["volumeMounts"]
    (mount,), (volume,) = agent["volumeMounts"], pod["spec"]["volumes"]
    assert (mount["name"], "Memory") == (volume["name"], volume["emptyDir"]["medium"])
    assert ("OMETRICS_DIR", str(options["directory"])) == tuple(variable.values())
    # Not the volume itself, which others can write to.
    assert Path(mount["mountPath"]) == options["directory"].parent
    assert ("0.0.0.0", port["containerPort"]) == options["listen"]
    assert port["name"] == sidecar["livenessProbe"]["httpGet"]["port"]
    assert {"runAsUser", "runAsGroup"} < set(pod["spec"]["securityContext"])


def test_the_unit(tmp_path: Path) -> None:
    """Nothing in it is wrong for systemd, and the command line is one."""
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block("ini"))
    service = unit["Service"]
    command = service["ExecStart"].removeprefix("/usr/bin/env ").split()

    assert f"/run/{service['RuntimeDirectory']}" == str(
        given(command)["directory"].parent
    )
    analyze = shutil.which("systemd-analyze")
    if analyze is not None:
        file = tmp_path / "ometrics.service"
        file.write_text(block("ini"))
        done = subprocess.run(
            [analyze, "verify", "--man=no", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert [] == [
            line for line in done.stderr.splitlines() if "ometrics.service" in line
        ]
