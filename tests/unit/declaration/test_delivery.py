"""A delivery publishes what its event caused."""

from __future__ import annotations

from typing import Any

import pytest

from hyperbus.declaration.delivery import Delivery
from hyperbus.errors import DeclarationError
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event


class Cause(EventData, type="delivery_test.cause"):
    pass


class Effect(EventData, type="delivery_test.effect"):
    number: int = 0


def deliver(event: Event[Any], published: list[Event[Any]], asked: list[Any] | None = None) -> Delivery:
    async def publish(event: Event[Any], /, *, once: bool = False, durability: str | None = None) -> str:
        published.append(event)
        if asked is not None:
            asked.append((once, durability))
        return f"{len(published)}-0"

    return Delivery(
        entry_id="1-0", stream="s", group="g", consumer="c", tries=1, body=b"", event=event, publish_event=publish
    )


async def test_bare_data_inherits_the_conversation_and_names_its_cause() -> None:
    """Workflow and correlation go on; the cause is the event in hand."""
    published: list[Event[Any]] = []
    cause = Event(data=Cause(), workflow_id="wf-1", correlation_id="c-1", source_agent="someone")
    assert await deliver(cause, published).publish(Effect(number=1)) == "1-0"
    [effect] = published
    assert (effect.type, effect.data) == ("delivery_test.effect", Effect(number=1))
    assert (effect.workflow_id, effect.correlation_id, effect.causation_id) == ("wf-1", "c-1", cause.id)
    assert effect.source_agent is None
    assert effect.id != cause.id


async def test_the_first_answer_begins_a_conversation_named_after_its_cause() -> None:
    """Where the cause has no correlation id yet."""
    published: list[Event[Any]] = []
    cause = Event(data=Cause())
    await deliver(cause, published).publish(Effect())
    assert (published[0].correlation_id, published[0].causation_id) == (cause.id, cause.id)
    assert published[0].workflow_id is None


async def test_what_an_event_says_itself_wins_except_for_its_cause() -> None:
    """And the event that was given is not changed."""
    published: list[Event[Any]] = []
    cause = Event(data=Cause(), workflow_id="wf-1", correlation_id="c-1")
    mine = Event(data=Effect(), workflow_id="wf-2", correlation_id="c-2", causation_id="other", source_agent="me")
    await deliver(cause, published).publish(mine)
    [effect] = published
    assert (effect.id, effect.workflow_id, effect.correlation_id) == (mine.id, "wf-2", "c-2")
    assert (effect.causation_id, effect.source_agent) == (cause.id, "me")
    assert mine.causation_id == "other"


async def test_data_without_a_type_cannot_be_published() -> None:
    """It names no stream."""
    published: list[Event[Any]] = []
    with pytest.raises(DeclarationError, match="EventData has no event type"):
        await deliver(Event(data=Cause()), published).publish(EventData())
    assert published == []


async def test_what_is_asked_of_publishing_is_passed_on() -> None:
    """A delivery can do what the bus can."""
    asked: list[Any] = []
    delivery = deliver(Event(data=Cause()), [], asked)
    await delivery.publish(Effect())
    await delivery.publish(Effect(), once=True, durability="replica:1")
    assert asked == [(False, None), (True, "replica:1")]
