"""How dead letters are stored on a server: by a script that acks what it has stored, however many words there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperbus.errors import ServerError
from hyperbus.transport import DeadLetter
from hyperbus.transports.dead_letters import to_fields
from hyperbus.transports.redis.command_runner import CommandRunner
from hyperbus.transports.redis.script import SCRIPT_ENTRIES, Script, flags, slices

#: Words of a letter that a script can pass on to a command; Lua ends a script that tries it with 8,000.
_MOST_WORDS = 4_000

_Words = list[str | bytes | int]


async def move_letters(
    commands: CommandRunner,
    script: Script,
    keys: Sequence[str],
    owner: Sequence[str],
    *,
    key: str,
    letters: Sequence[DeadLetter],
    consumer: str,
) -> list[bool]:
    """Store letters under `key`, and end their entries, where their owner has them; tell which.

    Each letter is one step, but for one of more than 2,000 fields: that is stored first, and goes again if nobody needs
    it. Whoever dies in between leaves it there, and the entry pending: it may become two letters then, and never none.

    Raises:
        BusUnavailable, ServerError: the server is away, or refuses.
    """
    stored: dict[int, bytes] = {}
    try:
        for index, letter in enumerate(letters):
            words = to_fields(letter, consumer)
            if len(words) > _MOST_WORDS:
                stored[index] = await commands.run_one("XADD", key, "*", *words)
        calls = [(keys, (*owner, *words)) for words in _pack(letters, consumer, stored)]
        return flags(await commands.run_script(script, calls))
    except ServerError:
        if stored:
            await commands.replies([("XDEL", key, *stored.values())])
        raise


def _pack(letters: Sequence[DeadLetter], consumer: str, stored: dict[int, bytes]) -> Iterator[_Words]:
    """Write letters as arguments of scripts: for each its entry id, the number of words, the words; see the script."""
    for part in slices(range(len(letters)), SCRIPT_ENTRIES):
        arguments: _Words = []
        for index in part:
            if index in stored:
                arguments += [letters[index].entry_id, 0, stored[index]]
            else:
                words = to_fields(letters[index], consumer)
                arguments += [letters[index].entry_id, len(words), *words]
        yield arguments
