"""The command line without a process of its own: endings, new projects, data to publish."""

from __future__ import annotations

import sys

import pytest

from hyperbus import __main__ as entry_point
from hyperbus.cli import app, init, publishing
from hyperbus.cli.app import UsageError
from hyperbus.cli.init import consumers_folder, make_project
from hyperbus.cli.publishing import publish_once
from hyperbus.errors import ConsumersNotFoundError, EncodeError, InvalidSettingError, PortInUseError
from hyperbus.settings import Settings

MEMORY = Settings(url="memory://")


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "configure_logs", lambda *_: None)


def end_of(monkeypatch: pytest.MonkeyPatch, *, raised: BaseException) -> object:
    """Run the entry point over a command that raises; return its exit code."""

    def run(_arguments: list[str]) -> int:
        raise raised

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setattr(sys, "argv", ["hyperbus"])
    with pytest.raises(SystemExit) as ended:
        entry_point.main()
    return ended.value.code


def test_an_error_becomes_one_line_and_its_own_code(monkeypatch, capsys):
    """Line breaks in a message would be further lines."""
    assert end_of(monkeypatch, raised=PortInUseError("port 1\n  is taken")) == 19
    assert capsys.readouterr().err == "hyperbus: port 1 is taken\n"


def test_ctrl_c_ends_quietly(monkeypatch, capsys):
    """130 is what shells expect."""
    assert end_of(monkeypatch, raised=KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


def test_an_error_that_is_not_ours_keeps_its_traceback(monkeypatch):
    """It is a bug, and a bug has to be found."""
    with pytest.raises(ZeroDivisionError):
        end_of(monkeypatch, raised=ZeroDivisionError())


def test_a_wrong_option_is_a_usage_error():
    """And names the command whose help tells more."""
    with pytest.raises(UsageError, match=r"--nonsense.*; see hyperbus publish --help"):
        app.run(["publish", "--nonsense"])


def test_no_arguments_show_the_help(capsys):
    """Every command is listed."""
    assert app.run([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in ("run", "publish", "tail", "init", "demo"))


def test_help_shows_the_defaults(capsys):
    """Square brackets are not taken for a style."""
    assert app.run(["run", "--help"]) == 0
    assert "[default: $HYPERBUS_URL, else" in " ".join(capsys.readouterr().out.split())


def test_a_new_project_bears_its_folder_s_name(tmp_path):
    """Everything but the suffix of the templates is there, and the name is filled in."""
    folder = tmp_path / "My Shop!"
    lines = list(make_project(folder))
    assert 'name = "my-shop"' in (folder / "pyproject.toml").read_text()
    assert "@NAME@" not in "".join(path.read_text() for path in folder.rglob("*.*") if path.is_file())
    assert {path.name for path in (folder / "consumers").iterdir()} >= {"db_writer.py", "websocket.py"}
    assert lines[-1].startswith("Next:  cd ")


def test_a_name_without_letters_is_replaced(tmp_path):
    """A project has to have a name."""
    list(make_project(tmp_path / "---"))
    assert 'name = "events"' in (tmp_path / "---" / "pyproject.toml").read_text()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    """And is not touched."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidSettingError, match="not empty"):
        list(make_project(tmp_path / "file"))
    with pytest.raises(InvalidSettingError, match="cannot be written"):
        list(make_project(tmp_path / "file" / "below"))


def test_an_installation_without_its_consumers_says_so(monkeypatch, tmp_path):
    """Somebody deleted them, or the wheel was built wrongly."""
    assert (consumers_folder() / "consumers" / "db_writer.py").is_file()
    monkeypatch.setattr(init, "_TEMPLATE", tmp_path)
    monkeypatch.setattr(init, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(ConsumersNotFoundError, match="install hyperbus again"):
        consumers_folder()


@pytest.mark.parametrize("text", ["{bad", "[]", "null", "\udcff", "[" * 100_000])
async def test_data_that_is_no_object_is_refused(text):
    """Before a bus is opened."""
    with pytest.raises(EncodeError, match="JSON"):
        await publish_once("a.b", text, MEMORY, workflow_id=None, source_agent=None, module=None)


async def test_data_is_checked_against_a_module_that_declares_its_type(tmp_path, monkeypatch):
    """A type that it does not declare is a mistake too."""
    (tmp_path / "shop_of_the_test.py").write_text(
        'from hyperbus import EventData\nclass Sold(EventData, type="cli_test.sold"):\n    price: int\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    async def publish(event_type: str, text: str, module: str = "shop_of_the_test") -> str:
        return await publish_once(event_type, text, MEMORY, workflow_id=None, source_agent=None, module=module)

    assert await publish("cli_test.sold", '{"price": 3}')
    with pytest.raises(EncodeError, match="price"):
        await publish("cli_test.sold", '{"price": "x"}')
    with pytest.raises(EncodeError, match="declares no event type"):
        await publish("cli_test.bought", "{}")
    with pytest.raises(ConsumersNotFoundError, match="no module"):
        await publish("cli_test.sold", "{}", module="no_such_module_of_the_test")
