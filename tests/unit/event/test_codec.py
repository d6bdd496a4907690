"""Codecs: what goes over the wire, and what is refused on either side."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbus.errors import DecodeError, EncodeError
from hyperbus.event.codec import Codec, JsonCodec, MessagePackCodec, codecs
from hyperbus.event.data import EventData
from hyperbus.event.envelope import Event
from tests.examples import examples

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
REQUIRED = {"id": "1", "type": "codec_test.reading", "timestamp": "2024-05-06T07:08:09Z", "data": {"value": 1}}
OPTIONAL_TEXT = (
    "workflow_id",
    "source_agent",
    "to",
    "correlation_id",
    "causation_id",
    "reply_to",
    "traceparent",
    "tracestate",
)
EACH_CODEC = pytest.mark.parametrize("codec", codecs(), ids=lambda codec: codec.name)


class Reading(EventData, type="codec_test.reading"):
    value: int
    note: str = ""
    parts: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    raw: bytes = b""


class Loose(EventData, type="codec_test.loose"):
    value: Any


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
moments = st.datetimes(timezones=st.just(UTC))
readings = st.builds(
    Reading,
    value=st.integers(-(2**63), 2**63 - 1),
    note=texts,
    parts=st.dictionaries(
        texts, st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=3), max_size=3
    ),
    raw=st.binary(max_size=20),
)
events = st.builds(
    Event,
    data=readings,
    id=texts,
    timestamp=moments,
    version=st.none() | st.integers(0, 2**31),
    deadline=st.none() | moments,
    **{name: st.none() | texts for name in OPTIONAL_TEXT},
)


def read(codec: Codec, body: bytes, data_type: Any = Reading) -> Event[Any]:
    return codec.decoder(data_type).decode(body)


def pack(codec: Codec, content: object) -> bytes:
    return (msgspec.json if codec.name == "json" else msgspec.msgpack).encode(content)


def test_json_is_the_default_and_each_codec_has_its_own_field() -> None:
    """A reader tells by the field's name which codec wrote an entry."""
    assert [(codec.name, codec.field) for codec in codecs()] == [("json", b"data"), ("msgpack", b"msgpack")]


def test_the_json_envelope_has_the_fields_of_the_design_in_their_order() -> None:
    """Byte for byte: other people's clients rely on it."""
    event = Event(
        id="0190",
        data=Reading(value=1, note="é", raw=b"\x00"),
        workflow_id="wf-1",
        timestamp=MOMENT,
        source_agent="coordinator",
    )
    assert JsonCodec().encode(event).decode() == (
        '{"id":"0190","type":"codec_test.reading","workflow_id":"wf-1","timestamp":"2024-05-06T07:08:09.123456Z",'
        '"source_agent":"coordinator","data":{"value":1,"note":"é","parts":{},"raw":"AA=="}}'
    )


@EACH_CODEC
def test_optional_fields_are_left_out_when_unset(codec: Codec) -> None:
    """Four fields are all that a small event costs."""
    body = codec.encode(Event(data=Reading(value=1), timestamp=MOMENT))
    content = json.loads(body) if codec.name == "json" else msgspec.msgpack.decode(body)
    assert list(content) == ["id", "type", "timestamp", "data"]


@EACH_CODEC
def test_every_field_that_is_set_is_written_in_wire_order(codec: Codec) -> None:
    """The order of the class is the order on the wire."""
    event = Event(data=Reading(value=1), version=2, deadline=MOMENT, **dict.fromkeys(OPTIONAL_TEXT, "x"))
    body = codec.encode(event)
    content = json.loads(body) if codec.name == "json" else msgspec.msgpack.decode(body)
    assert list(content) == list(Event.__struct_fields__)


@EACH_CODEC
@settings(max_examples=examples(150))
@given(event=events)
def test_an_event_comes_back_as_it_was(codec: Codec, event: Event[Reading]) -> None:
    """Whatever its fields hold."""
    assert read(codec, codec.encode(event)) == event


@EACH_CODEC
def test_many_events_are_written_as_each_would_be(codec: Codec) -> None:
    """In order; and one that cannot be written is named, as it would be alone."""
    many = [Event(id=str(n), data=Reading(value=n)) for n in range(3)]
    assert codec.encode_many(many) == [codec.encode(event) for event in many]
    assert codec.encode_many([]) == []
    with pytest.raises(EncodeError, match="the-one cannot be written"):
        codec.encode_many([*many, Event(id="the-one", data=Loose(value=object()))])


@EACH_CODEC
@settings(max_examples=examples(50))
@given(event=events)
def test_data_of_an_undeclared_type_reads_as_a_dict(codec: Codec, event: Event[Reading]) -> None:
    """With the same content, and everything of the envelope."""
    undeclared = read(codec, codec.encode(event), dict)
    assert undeclared.data["value"] == event.data.value
    assert msgspec.structs.replace(undeclared, data=None) == msgspec.structs.replace(event, data=None)


@EACH_CODEC
@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_an_entry_without_a_required_field_is_refused(codec: Codec, missing: str) -> None:
    """Reading repairs nothing: the event would get another identity at each reading."""
    content = {name: value for name, value in REQUIRED.items() if name != missing}
    with pytest.raises(DecodeError, match=f"not an event: .*`{missing}`"):
        read(codec, pack(codec, content))


@EACH_CODEC
def test_unknown_keys_are_ignored(codec: Codec) -> None:
    """Newer writers may say more, in the envelope and in the data."""
    content = REQUIRED | {"colour": "red", "data": {"value": 1, "unit": "m"}}
    assert read(codec, pack(codec, content)).data == Reading(value=1)


def test_an_entry_written_by_hand_is_read() -> None:
    """What redis-cli would send, with blanks and another time zone."""
    body = b'{ "data": {"value": 3}, "timestamp": "2024-05-06T09:08:09+02:00", "type": "x.y", "id": "a" }'
    event = read(JsonCodec(), body)
    assert (event.id, event.type, event.data.value) == ("a", "x.y", 3)
    assert event.timestamp == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert event.timestamp.utcoffset() == timedelta(hours=2)


@EACH_CODEC
@pytest.mark.parametrize(
    "change",
    [
        {"id": 5},
        {"type": None},
        {"timestamp": "yesterday"},
        {"version": "two"},
        {"workflow_id": 7},
        {"data": {"value": "many"}},
        {"data": {}},
        {"data": None},
        {"data": [1]},
    ],
    ids=str,
)
def test_a_field_of_the_wrong_shape_is_refused(codec: Codec, change: dict[str, Any]) -> None:
    """In the envelope and in the data."""
    with pytest.raises(DecodeError, match="not an event: "):
        read(codec, pack(codec, REQUIRED | change))


@EACH_CODEC
@pytest.mark.parametrize("body", [b"", b"\x00", b"hello", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"\xc1"])
def test_garbage_is_refused(codec: Codec, body: bytes) -> None:
    """Bytes that this codec never wrote."""
    with pytest.raises(DecodeError, match="not an event: "):
        read(codec, body)


@EACH_CODEC
@settings(max_examples=examples(200))
@given(body=st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_a_decode_error(codec: Codec, body: bytes) -> None:
    """One bad entry must never stop a stream."""
    with pytest.raises(DecodeError):
        read(codec, body, dict)


@EACH_CODEC
def test_half_an_event_is_refused(codec: Codec) -> None:
    """At whatever byte it was cut."""
    body = codec.encode(Event(data=Reading(value=1)))
    for length in range(len(body)):
        with pytest.raises(DecodeError):
            read(codec, body[:length])


def test_text_that_is_not_utf_8_is_refused() -> None:
    """The JSON is well-formed; its text is not."""
    body = pack(JsonCodec(), REQUIRED | {"workflow_id": "??"}).replace(b"??", b"\xff\xfe")
    with pytest.raises(DecodeError, match="not an event: "):
        read(JsonCodec(), body)


@EACH_CODEC
def test_nesting_too_deep_to_read_is_refused(codec: Codec) -> None:
    """A hundred thousand brackets fit easily below the size limit."""
    deep = b"[" * 100_000 + b"]" * 100_000 if codec.name == "json" else b"\x91" * 100_000 + b"\xc0"
    body = pack(codec, REQUIRED | {"data": "?"}).replace(b'"?"' if codec.name == "json" else b"\xa1?", deep)
    with pytest.raises(DecodeError, match=r"not an event: .*recursion"):
        read(codec, body, Any)


@EACH_CODEC
def test_data_that_the_codec_has_no_form_for_is_refused_with_advice(codec: Codec) -> None:
    """The message names the event, the codec and the types that fit."""
    event = Event(data=Loose(value=object()))
    with pytest.raises(EncodeError) as raised:
        codec.encode(event)
    message = str(raised.value)
    assert message.startswith(f"codec_test.loose {event.id} cannot be written as {codec.name}: ")
    assert message.endswith("use types that msgspec supports (numbers, str, bytes, datetime, list, dict, Struct, ...)")
    assert raised.value.__cause__ is not None


@EACH_CODEC
@pytest.mark.parametrize("value", [{(1, 2): "tuple key"}, "\ud800", 1j, {1, object()}])
def test_other_data_without_a_form_is_refused(codec: Codec, value: object) -> None:
    """Whatever msgspec raises, it arrives as one error."""
    if codec.name == "msgpack" and isinstance(value, dict):
        value = {object(): "object key"}  # MessagePack can write a tuple as a key
    with pytest.raises(EncodeError, match="cannot be written as"):
        codec.encode(Event(data=Loose(value=value)))


@EACH_CODEC
def test_data_nested_too_deep_to_write_is_refused(codec: Codec) -> None:
    """A list that holds itself, for one."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError, match="recursion"):
        codec.encode(Event(data=Loose(value=endless)))


def test_numbers_beyond_64_bits_are_refused_by_messagepack() -> None:
    """It has no form for them; JSON does."""
    event = Event(data=Loose(value=2**70))
    with pytest.raises(EncodeError, match="cannot be written as msgpack"):
        MessagePackCodec().encode(event)


class Interrupted(EventData, type="codec.interrupted"):
    """Ctrl-C meets whoever reads this."""

    n: int

    def __post_init__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_meets_a_decoder_is_no_event_that_cannot_be_read() -> None:
    """It ends the program, as anywhere else."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            JsonCodec().decoder(Interrupted).decode(
                b'{"id":"e","type":"codec.interrupted","timestamp":"2024-01-01T00:00:00Z","data":{"n":1}}'
            )
    finally:
        signal.signal(signal.SIGINT, before)
