"""The marker of tests that take minutes."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: starts a server, workers and producers, and breaks them")
