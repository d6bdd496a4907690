"""Verdicts on processes: what is replaced, what is killed, what is only called hung."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbus.settings import Settings
from hyperbus.supervisor.limits import FATAL, LEAST_LIFE, SLACK, Limits, Vitals

MB = 2**20
WELL = {"lived": 60.0, "silent": 0.1, "ready": True, "rss": 50 * MB, "deliveries": 10, "oldest_running": None}


def verdict(settings: dict[str, Any], **seen: Any) -> str | None:
    found = Limits.of(Settings(**settings)).judge(Vitals(**{**WELL, **seen}))
    return found.do if found else None


def test_without_limits_nothing_is_judged() -> None:
    """Whatever a process holds, did and does."""
    assert verdict({}, rss=2**40, deliveries=10**12, oldest_running=86_400.0, silent=86_400.0) is None


@pytest.mark.parametrize(
    ("settings", "seen", "expected"),
    [
        ({"max_rss": 100 * MB}, {"rss": 100 * MB}, None),
        ({"max_rss": 100 * MB}, {"rss": 100 * MB + 1}, "replace"),
        ({"max_rss": 100 * MB}, {"rss": int(FATAL * 100 * MB) + 1}, "kill"),
        ({"max_rss": 100 * MB}, {"rss": 101 * MB, "lived": LEAST_LIFE - 1}, None),
        ({"max_rss": 100 * MB}, {"rss": 200 * MB, "lived": 0.1, "ready": False}, "kill"),
        ({"max_deliveries": 11}, {}, None),
        ({"max_deliveries": 10}, {}, "replace"),
        ({"max_handler_seconds": 5.0}, {"oldest_running": 4.9}, None),
        ({"max_handler_seconds": 5.0}, {"oldest_running": 5.1}, "kill"),
        ({"max_handler_seconds": 5.0}, {"silent": 5.0 + SLACK}, None),
        ({"max_handler_seconds": 5.0}, {"silent": 5.1 + SLACK}, "kill"),
        ({"max_handler_seconds": 5.0}, {"silent": 60.0, "ready": False}, None),
    ],
)
def test_each_limit_has_its_own_verdict(settings: dict[str, Any], seen: dict[str, Any], expected: str | None) -> None:
    """Memory and deliveries have a process replaced; memory out of hand and handlers that do not end, killed."""
    assert verdict(settings, **seen) == expected


def test_a_loop_that_is_blocked_for_ten_ttls_is_no_hung_process() -> None:
    """Hanging is a matter of a minute, and only said."""
    settings = Settings()
    limits = Limits.of(settings)
    assert not limits.is_hung(Vitals(**{**WELL, "silent": 10 * settings.heartbeat_ttl + SLACK}))
    assert limits.is_hung(Vitals(**{**WELL, "silent": settings.hung_after + 1}))


def test_what_is_out_of_hand_and_what_is_late_are_these() -> None:
    """By value: half as much again as `max_rss` is fatal, five seconds are a life, one second is late."""
    assert (FATAL, LEAST_LIFE, SLACK) == (1.5, 5.0, 1.0)
    assert Limits.of(Settings()).least_life == 5.0
