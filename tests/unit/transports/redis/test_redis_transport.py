"""Which servers are new enough."""

from __future__ import annotations

import pytest

from hyperbus.errors import (
    UnsupportedServerError,
)
from hyperbus.transports.redis.transport import check_version


@pytest.mark.parametrize(
    "info",
    [
        "redis_version:7.0.0",
        "redis_version:8.6.3",
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2",
        "redis_version:7.2.4\r\nvalkey_version:7.2.4",
        "redis_version:7.0.15-rc1",
    ],
)
def test_new_servers_pass(info):
    """Redis from 7.0 and Valkey from 7.2 on."""
    check_version(info, "redis://here")


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ("redis_version:6.2.14", "Redis 6.2.14"),
        ("redis_version:7.2.4\r\nvalkey_version:7.1.9", "Valkey 7.1.9"),
        ("something:else", "unknown version"),
    ],
)
def test_old_servers_are_named(info, found):
    """The error says what was found and what is needed."""
    with pytest.raises(UnsupportedServerError, match=rf"{found}.*7\.0.*7\.2"):
        check_version(info, "redis://here")
