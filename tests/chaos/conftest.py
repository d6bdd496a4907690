"""Tests here are about processes that die, and so not measured."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage slows processes down, and those that are killed do not tell what they ran."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
