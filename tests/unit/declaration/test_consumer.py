"""The decorator: what it accepts, what it fills in, and what it refuses with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from hyperbus.declaration.consumer import Consumer, Declaration, check_declarations, consumer, declaration_of
from hyperbus.declaration.delivery import Delivery
from hyperbus.declaration.retry_policy import Backoff
from hyperbus.errors import DeclarationError
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event


class Opened(EventData, type="consumer_test.opened"):
    contract: str


class Closed(EventData, type="consumer_test.closed"):
    contract: str


class Untyped(EventData):
    contract: str


async def handle_any(event: Event) -> None: ...


async def handle_opened(event: Event[Opened]) -> None: ...


async def handle_many(events: list[Event]) -> None: ...


def declare(handler: Callable[..., Any] = handle_any, **options: Any) -> Declaration:
    """Declare a copy of `handler`, so that tests do not see each other's declarations."""

    async def copy(event: Event) -> None: ...

    copy.__name__ = handler.__name__
    copy.__qualname__ = handler.__qualname__
    copy.__annotations__ = dict(handler.__annotations__)
    if "events" in handler.__annotations__:

        async def copy(events: list[Event]) -> None: ...

    if not handler.__annotations__.get("event", "").startswith("Event["):
        options.setdefault("types", ["consumer_test.*"])
    return declaration_of(consumer(**options)(copy))


def refusal(**options: Any) -> str:
    """Return what a refused declaration is told."""
    with pytest.raises(DeclarationError) as raised:
        declare(**options)
    return str(raised.value)


# -- what is accepted


def test_a_function_stays_the_function_it_was() -> None:
    """Decorating adds a declaration and nothing else."""

    async def bill(event: Event[Opened]) -> None: ...

    assert consumer(group="billing")(bill) is bill


def test_the_annotation_names_types_and_classes() -> None:
    """Nothing has to be said twice."""
    declaration = declare(handle_opened)
    assert declaration.types.patterns == ("consumer_test.opened",)
    assert declaration.data_types == {"consumer_test.opened": Opened}
    assert declaration.signature.data_types == (Opened,)


def test_unset_options_have_the_documented_defaults() -> None:
    """One at a time, from the first event, tried with the default backoff, acked afterwards."""
    declaration = declare()
    assert (declaration.name, declaration.group) == ("handle_any", "handle_any")
    assert (declaration.concurrency, declaration.batch, declaration.linger) == (1, None, 0.0)
    assert (declaration.start_from, declaration.audience, declaration.ack) == ("first", "group", "handled")
    assert (declaration.retry, declaration.middleware, declaration.thread_limit) == (Backoff(), (), 1)
    assert (declaration.timeout, declaration.order_by) == (None, None)
    assert declaration.place == f"{__name__}.handle_any"


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("bill", "bill"),
        ("DbWriter", "db_writer"),
        ("HTTPServer", "http_server"),
        ("Writer2Disk", "writer2_disk"),
        ("db_writer", "db_writer"),
        ("X", "x"),
    ],
)
def test_the_group_is_the_name_in_snake_case(name: str, group: str) -> None:
    """Unless one is given."""

    async def handler(event: Event) -> None: ...

    handler.__name__ = name
    assert declaration_of(consumer(types=["a"])(handler)).group == group
    assert declaration_of(consumer(types=["a"], group="mine")(handler)).group == "mine"


def test_names_globs_and_classes_may_stand_side_by_side() -> None:
    """Classes say how their events are read; of the others the runtime decides."""
    declaration = declare(types=["other.*", Opened, "consumer_test.closed", Opened])
    assert declaration.types.patterns == ("other.*", "consumer_test.opened", "consumer_test.closed")
    assert declaration.data_types == {"consumer_test.opened": Opened}


def test_types_may_be_any_iterable() -> None:
    """A generator gives its items only once."""
    declaration = declare(types=(entry for entry in (Opened, "x.y")))
    assert declaration.types.patterns == ("consumer_test.opened", "x.y")
    assert declaration.data_types == {"consumer_test.opened": Opened}


def test_annotation_and_types_may_both_stand_where_they_agree() -> None:
    """By name or by class, in any order."""

    async def both(event: Event[Opened] | Event[Closed]) -> None: ...

    declaration = declaration_of(consumer(types=["consumer_test.closed", Opened])(both))
    assert set(declaration.data_types) == {"consumer_test.opened", "consumer_test.closed"}


def test_a_class_is_declared_by_its_handle_method() -> None:
    """And its instances carry the declaration too."""

    @consumer(concurrency=200, retry=Backoff(tries=2), middleware=[])
    class DbWriter(Consumer):
        def handle(self, event: Event[Opened], delivery: Delivery) -> None: ...

    declaration = declaration_of(DbWriter)
    assert declaration_of(DbWriter()) is declaration
    assert declaration.group == "db_writer"
    assert declaration.signature.wants_delivery
    assert not declaration.signature.is_async
    assert (declaration.concurrency, declaration.thread_limit, declaration.retry) == (200, 64, Backoff(tries=2))


async def test_start_and_stop_of_a_consumer_may_be_left_out() -> None:
    """The base class has both, and they do nothing."""
    assert await Consumer().start() is None
    assert await Consumer().stop() is None


def test_a_handler_of_lists_is_a_batch_of_a_hundred() -> None:
    """Or of as many as were asked for."""
    assert declare(handle_many).batch == 100
    assert declare(handle_many, batch=500, linger=0.05).batch == 500


def test_what_a_worker_may_hold_may_be_chosen() -> None:
    """Else the setting holds."""
    assert (declare().prefetch, declare(prefetch=16).prefetch) == (None, 16)


def test_a_thread_limit_may_be_chosen() -> None:
    """It need not follow the concurrency."""
    assert declare(concurrency=8).thread_limit == 8
    assert declare(concurrency=8, thread_limit=2).thread_limit == 2


@pytest.mark.parametrize("start_from", ["first", "new", "0-0", "1700000000000-0", "18446744073709551615-1"])
def test_a_group_may_begin_anywhere(start_from: str) -> None:
    """At the first entry, at new ones, or after an entry id."""
    assert declare(start_from=start_from).start_from == start_from


def test_every_process_and_ack_received_are_kept() -> None:
    """Each for itself."""
    assert declare(audience="every_process").audience == "every_process"
    assert declare(ack="received").ack == "received"


def test_the_middleware_is_kept_in_order() -> None:
    """As a tuple, so that nobody changes it later."""

    async def first(event: Any, delivery: Any, call_next: Any) -> None: ...

    async def second(event: Any, delivery: Any, call_next: Any) -> None: ...

    assert declare(middleware=[first, second]).middleware == (first, second)


def test_a_policy_is_chosen_by_the_type_of_the_error() -> None:
    """And what was declared cannot be changed afterwards."""
    slow, policies = Backoff(initial=5, maximum=9), {ValueError: None}
    declaration = declare(retry={**policies, OSError: slow})
    assert declaration.policy_for(ConnectionError()) == slow
    assert declaration.policy_for(ValueError()) is None
    assert declaration.policy_for(KeyError()) == Backoff()
    assert declare(retry=slow).policy_for(ValueError()) == slow
    given: dict[type[Exception], Backoff | None] = {ValueError: None}
    declaration = declare(retry=given)
    given.clear()
    assert declaration.policy_for(ValueError()) is None


def test_a_handler_may_have_a_time_limit() -> None:
    """In seconds."""
    assert declare(timeout=0.5).timeout == 0.5
    assert declare(timeout=86_400).timeout == 86_400


def test_an_order_is_kept_with_its_key() -> None:
    """As it was declared, and ready to be used."""
    declaration = declare(order_by="workflow_id")
    assert declaration.order_by == "workflow_id"
    assert declaration.key_of(Event(type="a", data={}, workflow_id="w")) == "w"
    assert declare().key_of(Event(type="a", data={}, workflow_id="w")) is None
    assert declare(handle_opened, order_by="data.contract").order_by == "data.contract"
    assert declare(order_by="data.unknown").order_by == "data.unknown", "of a glob's types nothing is known"
    assert declare(order_by=lambda event: event.id).key_of(Event(type="a", data={}, id="i")) == "i"


# -- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"types": "a.*"}, "types= takes a list, such as types=['a.*']"),
        ({"types": []}, "types=[] names no event; name at least one"),
        ({"types": ["A"]}, "'A' cannot be an event type"),
        ({"types": ["A*"]}, "'A*' cannot be a glob of event types"),
        ({"types": [Untyped]}, "Untyped has no event type"),
        ({"types": [3]}, "int has no event type"),
        ({"group": "a b"}, "'a b' cannot be a group"),
        ({"group": ""}, "'' cannot be a group"),
        ({"concurrency": 0}, "concurrency=0 has to lie between 1 and 10000"),
        ({"concurrency": 10_001}, "concurrency=10001 has to lie between 1 and 10000"),
        ({"prefetch": 0}, "prefetch=0 has to lie between 1 and 1000000"),
        ({"thread_limit": 0}, "thread_limit=0 has to lie between 1 and 10000"),
        ({"thread_limit": -1}, "thread_limit=-1 has to lie between"),
        ({"batch": 10}, "batch= needs a handler that takes list[Event]"),
        ({"handler": handle_many, "batch": 0}, "batch=0 has to lie between 1 and 10000"),
        ({"handler": handle_many, "batch": 10_001}, "batch=10001 has to lie between 1 and 10000"),
        ({"linger": -1}, "linger=-1 has to lie between 0 and 60 seconds"),
        ({"linger": 61}, "linger=61 has to lie between 0 and 60 seconds"),
        ({"linger": float("nan")}, "linger=nan has to lie between 0 and 60 seconds"),
        ({"start_from": "$"}, "start_from='$': say 'first', 'new' or an entry id like '1700-0'"),
        ({"start_from": "1700"}, "start_from='1700': say"),
        ({"start_from": "\u0661-\u0660"}, "say 'first', 'new' or an entry id"),
        ({"ack": "never"}, "ack='never' has to be 'handled' or 'received'"),
        ({"audience": "all"}, "audience='all' has to be 'group' or 'every_process'"),
        ({"ack": "received", "retry": Backoff()}, "ack='received' forgets an event before it is handled"),
        (
            {"audience": "every_process", "retry": Backoff()},
            "begins now and never retries; drop retry= and start_from=",
        ),
        ({"audience": "every_process", "start_from": "new"}, "begins now and never retries"),
        ({"retry": 3}, "retry=3 has to be a Backoff(...), or a mapping"),
        ({"retry": {"ValueError": None}}, "retry= maps 'ValueError', which is no type of exception"),
        ({"retry": {ValueError: 3}}, "retry= maps ValueError to 3; give a Backoff(...), or None for never"),
        ({"timeout": 0}, "timeout=0 has to be more than 0 and at most 86400 seconds"),
        ({"timeout": float("nan")}, "timeout=nan has to be more than 0"),
        ({"timeout": 86_401}, "timeout=86401 has to be more than 0"),
        (
            {"order_by": "workflow"},
            "order_by='workflow' names no key: say 'workflow_id', 'source_agent', 'data.<field>'",
        ),
        ({"handler": handle_opened, "order_by": "data.nn"}, "no event of this consumer has a field 'nn' in its data"),
        ({"handler": handle_many, "order_by": "workflow_id"}, "order_by= cannot hold for a list of events"),
        ({"audience": "every_process", "order_by": "workflow_id"}, "never retries, so order_by= has nothing to hold"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_with_words(options: dict[str, Any], words: str) -> None:
    """Where it is written, and not when it runs."""
    assert words in refusal(**options)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"linger": 99}, {"group": "a b"}, {"ack": "never"}], ids=str)
def test_a_refusal_says_where_the_declaration_stands(options: dict[str, Any]) -> None:
    """Module and name."""
    assert refusal(**options).startswith(f"{__name__}.handle_any: ")


def test_a_consumer_without_types_is_refused() -> None:
    """Bare `Event` says nothing about which events."""
    with pytest.raises(DeclarationError, match="says nowhere which events it takes: annotate its event as"):
        consumer()(handle_any)


@pytest.mark.parametrize(
    "types", [["consumer_test.closed"], ["consumer_test.*"], [Opened, Closed], [Opened, "other"]], ids=str
)
def test_annotation_and_types_that_disagree_are_refused(types: list[Any]) -> None:
    """Either says more, or less, than the other."""
    words = r"its annotation takes consumer_test\.opened and types= says .*; they have to agree"
    with pytest.raises(DeclarationError, match=words):
        consumer(types=types)(handle_opened)


def test_a_class_that_is_no_consumer_is_refused() -> None:
    """It would have no start and stop."""
    with pytest.raises(DeclarationError, match=r"Writer has to be a subclass of hyperbus\.Consumer"):

        @consumer(types=["a"])
        class Writer:
            async def handle(self, event: Event) -> None: ...


def test_a_class_without_handle_is_refused() -> None:
    """There would be nothing to call."""
    with pytest.raises(DeclarationError, match=r"Idle has no handle\(self, event\) method"):

        @consumer(types=["a"])
        class Idle(Consumer):
            pass


def test_a_name_that_makes_no_group_is_refused() -> None:
    """A lambda's, for one."""
    with pytest.raises(DeclarationError, match="'<lambda>' cannot be a group"):
        consumer(types=["a"])(lambda event: None)


@pytest.mark.parametrize("thing", [handle_any, Consumer, Consumer(), 3, None])
def test_what_was_not_decorated_is_no_consumer(thing: object) -> None:
    """The message says what to do."""
    with pytest.raises(DeclarationError, match=re.escape("is not a consumer: decorate it with @consumer(...)")):
        declaration_of(thing)


# -- several at once


def test_one_group_with_overlapping_types_twice_is_refused() -> None:
    """Each event would reach only one of the two."""
    first = declare(group="shared", types=["consumer_test.opened"])
    second = declare(group="shared", types=["consumer_test.*"])
    words = rf"{re.escape(first.place)} and .* both serve group 'shared' with overlapping types"
    with pytest.raises(DeclarationError, match=words):
        check_declarations([declare(group="other"), first, second])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"group": "a"}, {"group": "b"}),
        ({"group": "a", "types": ["x.*"]}, {"group": "a", "types": ["y.*"]}),
        ({"group": "a"}, {"group": "a", "audience": "every_process"}),
        ({"group": "a", "audience": "every_process"}, {"group": "a", "audience": "every_process"}),
    ],
    ids=str,
)
def test_declarations_that_do_not_compete_may_stand_side_by_side(first: Any, second: Any) -> None:
    """Another group, other types, or no group at all."""
    check_declarations([declare(**first), declare(**second)])
    check_declarations([])
