"""Found by use: one file that is loaded as two modules, by `python -m` or by a server that is given `main:app`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import DEADLINE, Running, environment

APP = """
import asyncio
from hyperbus import Bus, Consumer, Event, EventData, consumer

class Ordered(EventData, type="order.placed"):
    number: int

seen = []

@consumer(group="billing")
async def bill(event: Event[Ordered]) -> None:
    seen.append(event.data.number)

@consumer(group="shipping")
class Ship(Consumer):
    async def handle(self, event: Event[Ordered]) -> None:
        seen.append(-event.data.number)

async def main(*consumers):
    async with Bus("memory://") as bus, bus.running(*consumers):
        await bus.publish(Ordered(number=1))
        async with asyncio.timeout(20):
            while len(seen) < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    print(sorted(seen))
"""


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(), capture_output=True, text=True,
        timeout=DEADLINE, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("words", [("-m", "app"), ("app.py",)], ids=["as a module", "as a file"])
def test_a_program_that_imports_itself_runs(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Its events and its consumers are there once, whichever of the two modules they are taken from."""
    own = '\nif __name__ == "__main__":\n    import app\n    asyncio.run(main(bill, Ship, app.Ship))\n'
    (tmp_path / "app.py").write_text(APP + own)
    assert run(tmp_path, *words) == (0, "[-1, 1]\n", "")


def test_a_file_that_is_on_the_path_twice_is_one(tmp_path: Path) -> None:
    """As `shop.app` and as `app`, through a link, too; `hyperbus run` and programs alike."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/app.py").write_text(APP)
    (tmp_path / "linked.py").symlink_to(tmp_path / "shop/app.py")
    program = (
        "import asyncio, sys; sys.path.append('shop'); import app, linked, shop.app; "
        "asyncio.run(app.main(app.bill, shop.app.bill, linked.bill, app.Ship, linked.Ship))"
    )
    assert run(tmp_path, "-c", program) == (0, "[-1, 1]\n", "")
    with Running("run", "shop.app", "linked", folder=tmp_path, variables={"HYPERBUS_HTTP_PORT": "0"}) as running:
        assert running.wait_until_ready()["consumers"] == 2
        assert running.stop() == 0


def test_two_classes_in_two_files_are_refused_all_the_same(tmp_path: Path) -> None:
    """With both places, and advice; so are two in one file, and a consumer that is given twice."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "copied.py").write_text(APP)
    code, _, err = run(tmp_path, "-c", "import asyncio, app, copied; asyncio.run(app.main(app.bill))")
    assert code == 1
    assert "DuplicateTypeError" in err
    assert "app.Ordered and copied.Ordered" in err
    assert "another type=" in err
    (tmp_path / "two.py").write_text(APP + '\nclass Also(EventData, type="order.placed"):\n    number: int\n')
    code, _, err = run(tmp_path, "-c", "import asyncio, two; asyncio.run(two.main(two.bill))")
    assert "two.Ordered and two.Also" in err
    code, _, err = run(tmp_path, "-c", "import asyncio, app; asyncio.run(app.main(app.bill, app.bill))")
    assert "DeclarationError" in err
