from __future__ import annotations

import pytest

from tests.call_times import KNOWN, LONGEST, CallTimes
from tests.servers import Server

KNOWN_WORDS = b"EVAL " + KNOWN.encode()


@pytest.mark.parametrize(
    ("known", "others", "too_long"),
    [
        ([900, 1_000], [LONGEST, 10], []),
        ([900, 1_000], [LONGEST + 300] * 3, [LONGEST + 300] * 3),
        ([900, 9_000], [LONGEST + 9_000] * 3, []),
        ([900, 1_000], [LONGEST + 300] * 2, []),
        ([900, 1_000], [5 * LONGEST], [5 * LONGEST]),
    ],
    ids=["short", "long", "a busy machine", "chance", "very long"],
)
def test_a_call_is_judged_by_what_the_machine_did_to_known_ones(
    server: Server, known: list[int], others: list[int], too_long: list[int]
) -> None:
    """And two may meet what no known one met, if they are not very long."""
    times = CallTimes(server)
    times._calls = [(duration, KNOWN_WORDS) for duration in known * 10]
    times._calls += [(duration, b"XACK a b c") for duration in others]
    assert [duration for duration, _ in times.too_long()] == too_long


def test_a_long_call_on_a_server_is_found(server: Server) -> None:
    """However busy the machine is: it is as long as a hundred known ones."""
    with Server(server.binary) as own, CallTimes(own) as times:
        while not times._calls_made > 20:
            own.command("PING")
        own.command("EVAL", "--long\n" + KNOWN.replace("100000", "20000000"), 0)
    assert [words.split()[0] for _, words in times.too_long()] == [b"EVAL"]
