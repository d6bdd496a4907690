"""The envelope: what it fills in, and the identity it gives."""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from hyperbus.errors import DeclarationError
from hyperbus.event import envelope
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event, new_id


class Measured(EventData, type="envelope_test.measured"):
    value: int = 0


def test_an_event_fills_in_id_type_and_timestamp() -> None:
    """The data is all that has to be given."""
    before = datetime.now(UTC)
    event = Event(data=Measured(value=1))
    assert event.type == "envelope_test.measured"
    assert uuid.UUID(event.id).version == 7
    assert before <= event.timestamp <= datetime.now(UTC)
    assert event.timestamp.tzinfo is UTC


def test_what_is_given_is_kept() -> None:
    """Nothing that the caller chose is made up again."""
    moment = datetime(2024, 5, 6, tzinfo=UTC)
    event = Event(data=Measured(), id="mine", type="envelope_test.other", timestamp=moment)
    assert (event.id, event.type, event.timestamp) == ("mine", "envelope_test.other", moment)


def test_everything_else_is_unset() -> None:
    """Optional fields are None until someone sets them."""
    event = Event(data=Measured())
    given = {"id", "type", "timestamp", "data"}
    assert {getattr(event, name) for name in Event.__struct_fields__ if name not in given} == {None}


def test_an_event_of_untyped_data_needs_a_type() -> None:
    """A dict names no stream; with `type=` it is fine."""
    with pytest.raises(DeclarationError, match="dict has no event type"):
        Event(data={"value": 1})
    assert Event(data={"value": 1}, type="envelope_test.untyped").data == {"value": 1}


def test_unknown_fields_are_refused() -> None:
    """A misspelt field name must not pass unseen."""
    with pytest.raises(TypeError, match="workflow"):
        Event(data=Measured(), workflow="wf-1")  # type: ignore[call-arg]


def test_ids_are_version_7_uuids_of_the_rfc_variant() -> None:
    """In canonical form: 36 characters, lower case."""
    for text in (new_id() for _ in range(1000)):
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text)
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_ids_are_unique() -> None:
    """Thousands are made within one millisecond."""
    assert len({new_id() for _ in range(20_000)}) == 20_000


def test_ids_carry_the_milliseconds_they_were_made_at() -> None:
    """The first 48 bits, so that ids of different times sort by time."""
    before = time.time_ns() // 1_000_000
    stamp = uuid.UUID(new_id()).int >> 80
    assert before <= stamp <= time.time_ns() // 1_000_000


def test_ids_of_a_later_millisecond_sort_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text order is time order, whatever the random bits are."""
    ids = []
    for stamp in (0, 1, 1_700_000_000_000, 1_700_000_000_001, 2**48 - 1):
        monkeypatch.setattr(envelope.time, "time_ns", lambda stamp=stamp: stamp * 1_000_000)
        ids.append(new_id())
    assert ids == sorted(ids)


@pytest.mark.parametrize(("fill", "middle", "end"), [(0, "7000-8000", "0" * 12), (-1, "7fff-8fff", "f" * 12)])
def test_every_random_bit_has_its_place(monkeypatch: pytest.MonkeyPatch, fill: int, middle: str, end: str) -> None:
    """72 random bits, and none of them touches version, variant or time."""
    monkeypatch.setattr(envelope.time, "time_ns", lambda: 0x0123_4567_89AB * 1_000_000)
    monkeypatch.setattr(envelope, "_random_bits", lambda count: fill & (1 << count) - 1)
    assert new_id() == f"01234567-89ab-{middle}-{end}"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests; the child needs none
def test_ids_of_a_forked_process_are_its_own() -> None:
    """A child that went on with its parent's random numbers would repeat the parent's ids."""
    made = []
    for child in range(2):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, new_id()[15:].encode())
            os._exit(0)
        os.close(writing)
        made.append(os.read(reading, 100))
        os.close(reading)
        os.wait()
        assert len(made[child]) == 21
    assert len({*made, new_id()[15:].encode()}) == 3


def test_ids_of_a_program_that_seeds_its_random_numbers_are_unique() -> None:
    """The seed is for its own ends."""
    random.seed(1)
    first = new_id()[15:]
    random.seed(1)
    assert new_id()[15:] != first


def test_ids_of_many_threads_are_unique() -> None:
    """Threads share what makes ids."""
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: [new_id() for _ in range(2_000)], range(8)))
    assert len({text for ids in made for text in ids}) == 16_000
