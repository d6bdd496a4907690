"""Skips a test where no Docker engine answers."""

from __future__ import annotations

import os
import subprocess

import pytest


def require_docker(*more: str) -> None:
    """Skip unless an engine answers; `more` is a `docker` command that must succeed too.

    HYPERBUS_TEST_DOCKER=required makes what is missing a failure: where the engine belongs, a skip would hide its loss.
    """
    for command in (["info", "--format", "{{.ServerVersion}}"], list(more)):
        if command and (problem := _problem(command)):
            if os.environ.get("HYPERBUS_TEST_DOCKER") == "required":
                pytest.fail(problem)
            pytest.skip(problem)


def _problem(command: list[str]) -> str:
    name = f"docker {' '.join(command)}"
    try:
        done = subprocess.run(["docker", *command], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine answers: {name}: {error}"
    # without an engine `docker info` may end well and print nothing but its error
    if done.returncode or not done.stdout.strip():
        return f"no Docker engine answers: {name}: {done.stderr.strip()[-300:]}"
    return ""
