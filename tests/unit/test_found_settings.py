"""A setting that cannot be used is named with its value and the place where it was set; secrets are not shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperbus.errors import InvalidSettingError
from hyperbus.settings import Settings, load_settings

ODD_VALUES = [
    ("http_port", "banana", "whole number"),
    ("prefetch", "many", "whole number"),
    ("publish_timeout", "soon", "number of seconds"),
    ("loop", "fast", "auto, asyncio, uvloop"),
    ("log_level", "loud", "debug, info, warning"),
    ("log_format", "xml", "pretty, json, logfmt"),
    ("codec", "xml", "json, msgpack"),
    ("max_rss", "12XB", "512MB"),
    ("prefix", "a b", "letters"),
]


@pytest.mark.parametrize(("name", "value", "words"), ODD_VALUES)
def test_the_place_where_it_was_set_is_named(tmp_path: Path, name: str, value: str, words: str) -> None:
    """The environment, pyproject.toml with its file, and the command line."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project, elsewhere):
        folder.mkdir()
    (project / "pyproject.toml").write_text(f'[tool.hyperbus]\n{name} = "{value}"\n')
    (elsewhere / "pyproject.toml").write_text("")
    variable, option = f"HYPERBUS_{name.upper()}", f"--{name.replace('_', '-')}"
    for overrides, environment, folder, place in (
        ({}, {variable: value}, elsewhere, variable),
        ({}, {}, project, str(project / "pyproject.toml")),
        ({name: value}, {}, elsewhere, option),
    ):
        with pytest.raises(InvalidSettingError) as raised:
            load_settings(overrides, environment=environment, folder=folder)
        for part in (name, repr(value), words, place):
            assert part in str(raised.value)


def test_a_number_that_is_out_of_bounds_says_where_it_was_set(tmp_path: Path) -> None:
    """It has the right type, and is found wrong later."""
    with pytest.raises(InvalidSettingError, match=r"http_port=99999 .*HYPERBUS_HTTP_PORT"):
        load_settings(environment={"HYPERBUS_HTTP_PORT": "99999"}, folder=tmp_path)


@pytest.mark.parametrize("name", ["prefix", "url", "host", "websocket_token", "log_level", "database_url"])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, name: str) -> None:
    """Python hands them over as lone surrogates, which nothing can write."""
    with pytest.raises(InvalidSettingError, match=f"HYPERBUS_{name.upper()}") as raised:
        load_settings(environment={f"HYPERBUS_{name.upper()}": os.fsdecode(b"s\xff")}, folder=tmp_path)
    assert "UTF-8" in str(raised.value)
    str(raised.value).encode()


def test_settings_are_printed_without_secrets() -> None:
    """As they are where something went wrong: in a traceback, an error reporter, a debugger."""
    text = repr(
        Settings(
            url="redis://app:hunter2/x@h/0", websocket_token="hunter2", database_url="postgresql://u:hunter2@h/d",
            prefix="shop",
        )
    )  # fmt: skip
    assert "hunter2" not in text
    assert "shop" in text
