"""The decorator `consumer`, and the frozen declaration that it leaves on a function or a class. No I/O."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from hyperbus.clock import Seconds
from hyperbus.declaration.middleware import Middleware
from hyperbus.declaration.ordering import KeyOf, OrderBy, check_field, key_function
from hyperbus.declaration.retry_policy import Backoff, Policies, check_policies, policy_for
from hyperbus.declaration.signature import Signature, read_signature
from hyperbus.declaration.target import keep, target_of
from hyperbus.errors import DeclarationError, InvalidSettingError
from hyperbus.event.data import EventData, type_of
from hyperbus.event.routing import TypeFilter, check_name
from hyperbus.event.source import Source, source_of

#: Where a declaration is kept on the function or class it belongs to.
ATTRIBUTE = "__hyperbus_declaration__"
#: Events in a batch at most, where the handler takes a list and says nothing else.
DEFAULT_BATCH = 100
#: The most that `concurrency` and `batch` may be.
MOST_CONCURRENCY = 10_000
MOST_BATCH = 10_000
MOST_PREFETCH = 1_000_000
#: The longest that `timeout` may be: a day.
LONGEST_TIMEOUT: Seconds = 86_400.0
_ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")

Audience = Literal["group", "every_process"]
AckWhen = Literal["handled", "received"]
DecoratedT = TypeVar("DecoratedT", bound=Callable[..., Any])


class Consumer:
    """A consumer that has state. Give it a `handle(self, event)` or `handle(self, event, delivery)`.

    `handle` is not declared here: an override that takes less would fail a type checker. The decorator checks it.
    """

    async def start(self) -> None:
        """Prepare; called once a worker, before its first event."""

    async def stop(self) -> None:
        """Clean up; called once a worker, after its last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a consumer is, once the decorator has checked it. See `consumer` for the meaning of each field."""

    name: str
    group: str
    types: TypeFilter
    data_types: Mapping[str, type[EventData]]
    signature: Signature
    concurrency: int
    batch: int | None
    linger: Seconds
    retry: Backoff | Policies
    timeout: Seconds | None
    order_by: OrderBy | None
    #: The key of an event by `order_by`; None: it has none, and holds nothing back.
    key_of: KeyOf
    start_from: str
    audience: Audience
    ack: AckWhen
    middleware: tuple[Middleware, ...]
    thread_limit: int
    prefetch: int | None
    #: Where it was declared, and the same with its name there: "module.qualname".
    module: str
    place: str

    def policy_for(self, error: BaseException) -> Backoff | None:
        """Return when a delivery that failed with this error is tried again; None: never."""
        return policy_for(error, self.retry)


def consumer(
    decorated: Callable[..., Any] | None = None,
    /,
    *,
    group: str | None = None,
    types: Iterable[str | type[EventData]] | None = None,
    concurrency: int = 1,
    batch: int | None = None,
    linger: Seconds = 0.0,
    retry: Backoff | Policies | None = None,
    timeout: Seconds | None = None,
    order_by: OrderBy | None = None,
    start_from: str = "first",
    audience: Audience = "group",
    ack: AckWhen = "handled",
    middleware: Sequence[Middleware] = (),
    thread_limit: int | None = None,
    prefetch: int | None = None,
) -> Callable[[DecoratedT], DecoratedT]:
    """Declare a function, a subclass of `Consumer`, or anything else that is called with an event, to be a consumer.

    Without options the brackets can be left out. Around what cannot be written to, such as a bound method, it returns
    a `functools.partial`, which is the consumer.

    Args:
        decorated: what is declared, where the brackets are left out.
        group: the consumer group; by default the declaration's name in snake_case.
        types: event types by name, glob (`*` matches dots too) or class; by default those of the annotation.
        concurrency: how many deliveries (or batches) a worker handles at once.
        batch: hand over lists of up to this many events; by default 100 where the handler takes a list.
        linger: how long a batch may wait to fill up, in seconds.
        retry: when a failed delivery is tried again; by default `Backoff()`. Or a policy for each type of exception,
            of which the most specific holds: None means a dead letter at once, `Exception` all that are not named.
        timeout: how long a handler may take, in seconds; then its delivery has failed with a `TimeoutError`.
        order_by: handle events of one key one after the other, in the order of their stream: "workflow_id",
            "source_agent", "data.<field>" or a function of the event. An event without a key waits for none.
        start_from: where the group begins: "first" entry, "new" ones since the group was first declared, or an
            entry id to begin after. Streams born later are always read from their first entry.
        audience: "every_process" hands every event from now on to every process, without group, retry or promises.
        ack: "received" acks before the handler runs: at most once. Not together with `retry`.
        middleware: wraps every call of the handler; the first is the outermost.
        thread_limit: threads for a handler that is a plain function; by default `concurrency`, at most 64.
        prefetch: entries that a worker may hold, handled or not, at most; by default the setting `prefetch`. Of those
            that wait for its handlers it holds what they begin in about 0.1 s anyhow, and leaves the rest to others.

    Raises:
        DeclarationError: the declaration cannot work; the message says why.
    """
    caller = sys._getframe(1)  # noqa: SLF001 - annotations may name local classes
    scope, module = dict(caller.f_locals), str(caller.f_globals.get("__name__", ""))
    listed = types if types is None or isinstance(types, str) else tuple(types)  # read twice below

    def decorate(decorated: Any) -> Any:
        target = target_of(decorated, Consumer, module)
        where = target.place
        signature = read_signature(target.handler, method=target.is_method, scope=scope, name=where)
        chosen = _check_types(where, listed, signature)
        try:
            declaration = Declaration(
                name=target.name or group or "",
                group=_group(where, target.name, group),
                types=TypeFilter(chosen),
                data_types={type_of(data_type): data_type for data_type in _classes(listed, signature)},
                signature=signature,
                concurrency=_within(where, "concurrency", concurrency, MOST_CONCURRENCY),
                batch=_batch(where, batch, signature),
                linger=_check_linger(where, linger),
                retry=_policies(where, retry),
                timeout=_check_timeout(where, timeout),
                order_by=order_by,
                key_of=_key_function(where, order_by),
                start_from=_check_start(where, start_from),
                audience=audience,
                ack=ack,
                middleware=tuple(middleware),
                thread_limit=_thread_limit(where, thread_limit, concurrency),
                prefetch=None if prefetch is None else _within(where, "prefetch", prefetch, MOST_PREFETCH),
                module=target.module,
                place=where,
            )
        except InvalidSettingError as error:
            raise DeclarationError(f"{where}: {error}") from error
        _check_combination(declaration, has_retry=retry is not None)
        return keep(decorated, target, ATTRIBUTE, declaration)

    if isinstance(decorated, str | bytes):
        raise DeclarationError(
            f"consumer({decorated!r}) says not what that is: say group={decorated!r}, or types=[...]"
        )
    return decorate if decorated is None else decorate(decorated)


def declaration_of(declared: object) -> Declaration:
    """Return the declaration of a decorated function, class, or instance of such a class.

    Raises:
        DeclarationError: it was not decorated.
    """
    found = getattr(declared, ATTRIBUTE, None)
    if isinstance(found, Declaration):
        return found
    raise DeclarationError(f"{declared!r} is not a consumer: decorate it with @consumer(...)")


def distinct_consumers(consumers: Iterable[object]) -> list[object]:
    """Return consumers without those that came a second time, as the same name in a file that is loaded as two modules.

    Raises:
        DeclarationError: one was not decorated.
    """
    found: list[object] = []
    for declared in consumers:
        declaration = declaration_of(declared)
        if not any(_are_one(declaration, declaration_of(other)) for other in found):
            found.append(declared)
    return found


def _are_one(first: Declaration, second: Declaration) -> bool:
    """Tell whether two declarations are one, in a file that was loaded as two modules."""
    if first.module == second.module or (first.group, first.types.patterns) != (second.group, second.types.patterns):
        return False
    source = _source(first)
    return source is not None and source == _source(second)


def _source(declaration: Declaration) -> Source | None:
    return source_of(declaration.module, declaration.place.removeprefix(f"{declaration.module}."))


def check_declarations(declarations: Sequence[Declaration]) -> None:
    """Check that declarations can run beside each other in one program.

    Raises:
        DeclarationError: one group is declared twice with types that overlap.
    """
    for index, first in enumerate(declarations):
        for second in declarations[index + 1 :]:
            same_group = first.group == second.group and first.audience == second.audience == "group"
            if same_group and first.types.overlaps(second.types):
                raise DeclarationError(
                    f"{first.place} and {second.place} both serve group {first.group!r} with overlapping types; "
                    f"each event would reach only one of the two: give one of them another group"
                )


def _group(where: str, name: str, group: str | None) -> str:
    if group is None and not name:
        raise DeclarationError(f"{where}: '<lambda>' cannot be a group: say group='...'")
    return check_name("group", name if group is None else group)


def _classes(types: Iterable[str | type[EventData]] | None, signature: Signature) -> tuple[type[EventData], ...]:
    named = tuple(entry for entry in types or () if not isinstance(entry, str))
    return tuple(dict.fromkeys(signature.data_types + named))


def _check_types(where: str, types: Iterable[str | type[EventData]] | None, signature: Signature) -> tuple[str, ...]:
    annotated = tuple(type_of(data_type) for data_type in signature.data_types)
    if types is None:
        if not annotated:
            raise DeclarationError(
                f"{where} says nowhere which events it takes: annotate its event as Event[SomeData], "
                f"or pass types=[...]"
            )
        return annotated
    if isinstance(types, str):
        raise DeclarationError(f"{where}: types= takes a list, such as types=[{types!r}]")
    chosen = tuple(entry if isinstance(entry, str) else type_of(entry) for entry in types)
    if not chosen:
        raise DeclarationError(f"{where}: types=[] names no event; name at least one")
    covered = TypeFilter(chosen)
    missing = [name for name in annotated if not covered.matches(name)]
    uncovered = [name for name in covered.patterns if annotated and name not in annotated]
    if missing or uncovered:
        raise DeclarationError(
            f"{where}: its annotation takes {', '.join(annotated)} and types= says {', '.join(chosen)}; "
            f"they have to agree, or leave one of them out"
        )
    return chosen


def _batch(where: str, batch: int | None, signature: Signature) -> int | None:
    if signature.batch:
        return _within(where, "batch", DEFAULT_BATCH if batch is None else batch, MOST_BATCH)
    if batch is not None:
        raise DeclarationError(f"{where}: batch= needs a handler that takes list[Event] (or list[Event[SomeData]])")
    return None


def _within(where: str, name: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise DeclarationError(f"{where}: {name}={value} has to lie between 1 and {most}")
    return value


def _thread_limit(where: str, limit: int | None, concurrency: int) -> int:
    return _within(where, "thread_limit", min(concurrency, 64) if limit is None else limit, MOST_CONCURRENCY)


def _check_linger(where: str, linger: Seconds) -> Seconds:
    if not 0 <= linger <= 60:  # noqa: PLR2004
        raise DeclarationError(f"{where}: linger={linger} has to lie between 0 and 60 seconds")
    return linger


def _check_timeout(where: str, timeout: Seconds | None) -> Seconds | None:
    if timeout is not None and not 0 < timeout <= LONGEST_TIMEOUT:
        raise DeclarationError(
            f"{where}: timeout={timeout} has to be more than 0 and at most {LONGEST_TIMEOUT:.0f} seconds"
        )
    return timeout


def _policies(where: str, retry: Backoff | Policies | None) -> Backoff | Policies:
    if retry is None or isinstance(retry, Backoff):
        return retry or Backoff()
    try:
        check_policies(retry)
    except DeclarationError as error:
        raise DeclarationError(f"{where}: {error}") from error
    return MappingProxyType(dict(retry))


def _key_function(where: str, order_by: OrderBy | None) -> KeyOf:
    try:
        return key_function(order_by)
    except DeclarationError as error:
        raise DeclarationError(f"{where}: {error}") from error


def _check_start(where: str, start_from: str) -> str:
    if start_from in ("first", "new") or _ENTRY_ID.fullmatch(start_from):
        return start_from
    raise DeclarationError(f"{where}: start_from={start_from!r}: say 'first', 'new' or an entry id like '1700-0'")


def _check_combination(declaration: Declaration, *, has_retry: bool) -> None:
    where = declaration.place
    if declaration.ack == "received" and has_retry:
        raise DeclarationError(f"{where}: ack='received' forgets an event before it is handled; it cannot have retry=")
    if declaration.audience not in ("group", "every_process"):
        raise DeclarationError(f"{where}: audience={declaration.audience!r} has to be 'group' or 'every_process'")
    if declaration.ack not in ("handled", "received"):
        raise DeclarationError(f"{where}: ack={declaration.ack!r} has to be 'handled' or 'received'")
    if declaration.audience == "every_process" and (has_retry or declaration.start_from != "first"):
        raise DeclarationError(
            f"{where}: audience='every_process' begins now and never retries; drop retry= and start_from="
        )
    if declaration.order_by is not None:
        _check_order(declaration)


def _check_order(declaration: Declaration) -> None:
    where = declaration.place
    if declaration.batch is not None:
        raise DeclarationError(
            f"{where}: order_by= cannot hold for a list of events: those of a batch fail one by one, and the next of a "
            f"key would overtake one that waits for its next try; let the handler take one event"
        )
    if declaration.audience == "every_process":
        raise DeclarationError(
            f"{where}: audience='every_process' never retries, so order_by= has nothing to hold back; drop it "
            f"(with concurrency=1 every stream is handled in its order)"
        )
    if set(declaration.types.patterns) <= declaration.data_types.keys():
        try:
            check_field(declaration.order_by, declaration.data_types.values())
        except DeclarationError as error:
            raise DeclarationError(f"{where}: {error}") from error
