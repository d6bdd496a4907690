"""Settings: where they come from, which one wins, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from hyperbus.errors import InvalidSettingError
from hyperbus.settings import Settings, load_settings, to_environment

ROOT = Path(__file__).parents[2]


def project(folder: Path, text: str) -> Path:
    """Write a pyproject.toml, and return its folder."""
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_nothing_set_gives_the_defaults(tmp_path: Path) -> None:
    """A project without a table for hyperbus sets nothing."""
    assert load_settings(environment={}, folder=project(tmp_path, "")) == Settings()
    assert load_settings(environment={}, folder=project(tmp_path, "[tool.ruff]")) == Settings()
    assert load_settings(environment={}, folder=project(tmp_path, "tool = 3")) == Settings()


def test_no_project_anywhere_is_no_error() -> None:
    """A container has none."""
    assert load_settings(environment={}, folder=Path("/")) == Settings()


def test_the_command_line_wins_over_the_environment_and_that_over_the_project(tmp_path: Path) -> None:
    """Setting by setting."""
    folder = project(tmp_path, "[tool.hyperbus]\nprefix = 'project'\nprefetch = 1\nhttp_port = 1\ncodec = 'msgpack'\n")
    environment = {"HYPERBUS_PREFIX": "environment", "HYPERBUS_PREFETCH": "2"}
    found = load_settings({"prefix": "command-line", "url": None}, environment=environment, folder=folder)
    assert (found.prefix, found.prefetch, found.http_port, found.codec) == ("command-line", 2, 1, "msgpack")
    assert found.url is None


def test_an_option_that_was_not_given_hides_nothing(tmp_path: Path) -> None:
    """None on the command line means not set."""
    found = load_settings({"url": None}, environment={"HYPERBUS_URL": "memory://"}, folder=tmp_path)
    assert found.url == "memory://"


def test_the_nearest_project_counts(tmp_path: Path) -> None:
    """A folder's own, or its closest parent's; not several of them."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    project(tmp_path, "[tool.hyperbus]\nprefix = 'outer'\nprefetch = 5\n")
    assert load_settings(environment={}, folder=inner).prefix == "outer"
    project(tmp_path / "a", "[tool.hyperbus]\nprefix = 'nearer'\n")
    found = load_settings(environment={}, folder=inner)
    assert (found.prefix, found.prefetch) == ("nearer", Settings().prefetch)


def test_without_arguments_the_process_s_own_environment_and_folder_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every command."""
    monkeypatch.chdir(project(tmp_path, "[tool.hyperbus]\nprefix = 'here'\n"))
    monkeypatch.setenv("HYPERBUS_HTTP_PORT", "0")
    found = load_settings()
    assert (found.prefix, found.http_port) == ("here", 0)


def test_text_of_the_environment_becomes_numbers(tmp_path: Path) -> None:
    """Everything there is text."""
    environment = {"HYPERBUS_PUBLISH_TIMEOUT": "2.5", "HYPERBUS_DRAIN_TIMEOUT": "3", "HYPERBUS_PREFETCH": "7"}
    found = load_settings(environment=environment, folder=tmp_path)
    assert (found.publish_timeout, found.drain_timeout, found.prefetch) == (2.5, 3.0, 7)


def test_unknown_names_in_the_environment_are_someone_else_s(tmp_path: Path) -> None:
    """Tests and tools have variables of that prefix too."""
    environment = {"HYPERBUS_TEST_SERVERS": "a=b", "PREFIX": "x", "hyperbus_prefix": "y"}
    assert load_settings(environment=environment, folder=tmp_path) == Settings()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"colour": "red"}, "colour"),
        ({"prefetch": "many"}, "prefetch"),
        ({"prefix": 5}, "prefix"),
        ({"prefetch": 0}, "prefetch=0 has to be a whole number from 1 to"),
        ({"prefetch": 2**40 + 1}, "has to be a whole number from 1 to"),
        ({"http_port": -1}, "http_port=-1 has to be a whole number from 0 to 65535"),
        ({"websocket_port": 65_536}, "websocket_port=65536 has to be a whole number from 0 to 65535"),
        ({"publish_timeout": 0.0}, "publish_timeout=0.0 has to be more than 0 and at most 86400 seconds"),
        ({"publish_timeout": 86_401.0}, "publish_timeout=86401.0 has to be more than 0"),
        ({"heartbeat_ttl": "nan"}, "heartbeat_ttl=nan has to be more than 0"),
        ({"heartbeat_ttl": "inf"}, "heartbeat_ttl=inf has to be more than 0"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, overrides: dict[str, object], words: str
) -> None:
    """An unknown name, a value that does not fit, or one that would leave something unbounded."""
    with pytest.raises(InvalidSettingError, match=re.escape(words)):
        load_settings(overrides, environment={}, folder=tmp_path)


def test_a_refused_secret_is_not_shown(tmp_path: Path) -> None:
    """The message goes to logs."""
    with pytest.raises(InvalidSettingError) as raised:
        load_settings({"websocket_token": 123456789}, environment={}, folder=tmp_path)
    assert "123456789" not in str(raised.value)
    assert "docs/settings.md" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[tool.hyperbus", "pyproject.toml cannot be read"),
        (b"\xff", "pyproject.toml cannot be read"),
        (b"[tool]\nhyperbus = 3", "hyperbus has to be a table, [tool.hyperbus]"),
        (b"[tool.hyperbus]\ncolour = 'red'", "colour"),
    ],
)
def test_a_project_that_cannot_be_read_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    """Going on with the defaults would write somewhere else."""
    (tmp_path / "pyproject.toml").write_bytes(text)
    with pytest.raises(InvalidSettingError, match=re.escape(words)):
        load_settings(environment={}, folder=tmp_path)


def test_settings_cannot_be_changed() -> None:
    """Several parts of a process hold the same ones."""
    with pytest.raises(AttributeError):
        Settings().prefix = "other"  # type: ignore[misc]


def rows(page: str) -> dict[str, list[str]]:
    """Return the cells of a page's tables by the code word in their first one."""
    found = {}
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = cells[1:]
    return found


def in_words(value: object) -> str:
    """Return a default as the page writes it."""
    return "—" if value in (None, "") else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_the_page_of_settings_lists_each_one_with_its_default() -> None:
    """docs/settings.md and the code say the same."""
    defaults = {field.name: in_words(field.default) for field in msgspec.structs.fields(Settings)}
    assert {name: cells[0] for name, cells in rows("docs/settings.md").items()} == defaults


def test_the_example_environment_names_each_setting() -> None:
    """Every line of .env.example that sets something is a comment, and holds the default."""
    found = dict(re.findall(r"^# HYPERBUS_(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert {name.lower() for name in found} == set(Settings.__struct_fields__)
    environment = {f"HYPERBUS_{name}": value for name, value in found.items() if name != "URL"}
    assert load_settings(environment=environment, folder=Path("/")) == Settings()


def test_settings_pass_unchanged_through_an_environment() -> None:
    """As they do from a supervisor to its processes."""
    chosen = Settings(url="memory://", prefix="x", heartbeat_ttl=0.3, http_port=0, websocket_origins="a,b")
    assert load_settings(environment=to_environment(chosen), folder=Path("/")) == chosen
    assert "HYPERBUS_URL" not in to_environment(Settings())


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("512MB", 512 * 2**20), ("512 MiB", 512 * 2**20), ("2g", 2 * 2**30), ("1.5K", 1536), ("7b", 7)],
)
def test_sizes_may_have_a_unit(text: str, size: int) -> None:
    """On the command line as in the environment; in powers of 1024."""
    assert load_settings({"max_rss": text}, environment={}, folder=Path("/")).max_rss == size
    assert load_settings(environment={"HYPERBUS_PREFETCH_BYTES": text}, folder=Path("/")).prefetch_bytes == size


@pytest.mark.parametrize("text", ["much", "12XB", "-1MB", "MB", "0"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """With the setting's name."""
    with pytest.raises(InvalidSettingError, match="max_rss"):
        load_settings({"max_rss": text}, environment={}, folder=Path("/"))
