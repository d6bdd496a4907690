"""What `docker build` and `docker compose` make tomorrow is what they make today, and whether it is well can be seen."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DIGEST = r"@sha256:[0-9a-f]{64}$"


def test_the_base_of_the_image_is_named_by_its_digest() -> None:
    """The same one in both files."""
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)
    assert re.search(DIGEST, base)
    assert re.findall(r"\$\{PYTHON_IMAGE:-(.+?)\}", COMPOSE) == [base]
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


def test_no_service_takes_whatever_is_the_latest_image() -> None:
    """A digest, or at least a version."""
    images = dict(re.findall(r"\$\{((?!HYPERBUS)\w+_IMAGE):-(.+?)\}", COMPOSE))
    assert set(images) >= {"REDIS_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
    for image in images.values():
        assert re.search(DIGEST, image) or re.search(r":v?\d+\.\d+\.\d+$", image), image


def test_the_image_has_a_health_check() -> None:
    """It asks what `hyperbus run` serves."""
    (check,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*?\]) *$", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)
    python, option, program = json.loads(check)
    assert (python, option) == ("python", "-c")
    ast.parse(program)
    assert "/healthz" in program
