"""Values of a log line: bounded, without secrets, and without characters that drive a terminal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain

#: A value of a log line is cut to this many characters.
MAX_VALUE_LENGTH = 2_000
#: What is not looked at for secrets any more, and not shown either.
MOST_LOOKED_AT = 100_000
#: Values whose lines are kept: tracebacks.
_KEEPS_LINES = ("exception", "stack")
#: Values that are a number of seconds.
_SECONDS = frozenset({"after", "interval", "lived", "restart_in", "seconds", "seconds_left", "took"})
_SECRETS = r"token|password|passwd|secret|authorization|api_?key"
_SECRET_KEY = re.compile(_SECRETS, re.IGNORECASE)
#: Up to the last @ of the word: a password that nobody quoted may hold any character.
_URL_LOGIN = re.compile(r"(://)(?:([^\s/:@]*):[^\s]*|[^\s/:@]+)@")
_SECRET_PARAMETER = re.compile(rf"((?:^|[?&;\s])(?:{_SECRETS})=)[^&;\s\"']+", re.IGNORECASE)
#: As `repr` shows a mapping.
_SECRET_ITEM = re.compile(
    rf"""(["'][\w-]*(?:{_SECRETS})[\w-]*["']:\s*)(?:b?"[^"]*"|b?'[^']*'|[^\s,}}\]]+)""", re.IGNORECASE
)
#: Control characters, and those that change how others are shown: their order, no width, line ends, lone surrogates.
_INVISIBLE = chain(
    (*range(9), *range(11, 32), *range(127, 160), 0xAD, 0x61C, 0x180E), range(0x200B, 0x2010), range(0x2028, 0x202F),
    range(0x2060, 0x2070), range(0xD800, 0xE000), (0xFEFF,), range(0xFFF9, 0xFFFC), range(0xE0000, 0xE0080),
)  # fmt: skip
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in _INVISIBLE}


def visible(text: str) -> str:
    """Return a text with every character shown, and none obeyed; tabs and line ends stay."""
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPES)


def without_secrets(text: str) -> str:
    """Return a text without passwords of URLs, and without what is called a secret in a query or a mapping."""
    text = _URL_LOGIN.sub(_without_login, text)
    return _SECRET_ITEM.sub(r"\1'***'", _SECRET_PARAMETER.sub(r"\1***", text))


def bounded(key: str, value: object, text: str) -> object:
    """Return the value of a log line, given what it is as text; numbers stay numbers, but rounded."""
    if isinstance(value, float):
        return round(value, 3) if abs(value) >= 1 else float(f"{value:.3g}")
    if value is None or isinstance(value, bool | int):
        return value
    if _SECRET_KEY.search(key):
        return "***"
    keeps_lines = key in _KEEPS_LINES
    # secrets go first: a cut through one would leave half of it, which nothing finds any more
    clean = visible(without_secrets(_cut(text, MOST_LOOKED_AT, from_end=keeps_lines)))
    clean = _cut(clean, MAX_VALUE_LENGTH, from_end=keeps_lines)
    if not keeps_lines:
        clean = clean.replace("\n", "\\n")
    return clean if isinstance(value, str) or clean != text else value


def as_words(values: Mapping[str, object]) -> str:
    """Return values for people: `type=order.paid after=0.1 s`, in their order."""
    return " ".join(f"{visible(key)}={_as_word(key, value)}" for key, value in values.items())


def as_logfmt(values: Iterable[tuple[str, object]]) -> str:
    """Return values in the form that log collectors call logfmt; each is one word, or quoted."""
    return " ".join(f"{_logfmt_key(key)}={_quoted(_plain(value))}" for key, value in values)


def _as_word(key: str, value: object) -> str:
    if isinstance(value, float) or (key in _SECONDS and isinstance(value, int)):
        return f"{_rounded(value)} s" if key in _SECONDS else _rounded(value)
    if isinstance(value, list | tuple):
        return ",".join(_plain(item) for item in value) or "none"
    return _quoted(_plain(value))


def _rounded(number: float) -> str:
    """Return a number as precisely as people want it: 0.1, 2.5, 12, 3400."""
    size = abs(number)
    if size and size < 1:
        return f"{number:.1g}" if size >= 0.0001 else f"{number:.0e}"  # noqa: PLR2004
    return f"{number:.1f}".removesuffix(".0") if size < 10 else f"{number:.0f}"  # noqa: PLR2004


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return visible(str(value)).replace("\n", "\\n")


def _quoted(text: str) -> str:
    if text and not re.search(r"[\s\"=]", text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _logfmt_key(key: str) -> str:
    return re.sub(r"[\s=\"]", "_", visible(key)) or "_"


def _without_login(found: re.Match[str]) -> str:
    user = found.group(2)
    return f"{found.group(1)}***@" if user is None else f"{found.group(1)}{user}:***@"


def _cut(text: str, limit: int, *, from_end: bool) -> str:
    """Cut what is too long; the end of a traceback says most."""
    if len(text) <= limit:
        return text
    return "…" + text[-limit:] if from_end else text[:limit] + "…"
