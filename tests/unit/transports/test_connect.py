"""Which transport a URL gets, and that no other one is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hyperbus.errors import InvalidSettingError
from hyperbus.transports.connect import connect
from hyperbus.transports.embedded.transport import EmbeddedTransport
from hyperbus.transports.memory.transport import MemoryTransport
from hyperbus.transports.redis.transport import RedisTransport


def open_url(url):
    return connect(url, prefix="events", connect_timeout=1, command_timeout=1)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://host", RedisTransport),
        ("rediss://host", RedisTransport),
        ("unix:///run/x.sock", RedisTransport),
        ("embedded://some/folder", EmbeddedTransport),
        ("memory://", MemoryTransport),
    ],
)
async def test_the_scheme_chooses_the_transport(url, kind):
    """Nothing is connected yet."""
    assert type(open_url(url)) is kind


def test_an_embedded_folder_is_relative_or_absolute(tmp_path, monkeypatch):
    """Relative to the working directory; three slashes for an absolute one; symbolic links are followed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = open_url(f"embedded://{tmp_path}/real").description
    assert real == f"embedded://{tmp_path}/real"
    assert open_url("embedded://real").description == real
    assert open_url("embedded://link").description == real


@pytest.mark.parametrize("url", ["http://u:s3cret@h", "localhost:6379", "", "embedded://", "redis", "kafka://h"])
def test_other_urls_are_refused_with_the_list_of_schemes(url):
    """The error says how a URL begins, and does not show what was given."""
    with pytest.raises(InvalidSettingError, match="embedded://") as caught:
        open_url(url)
    assert "s3cret" not in str(caught.value)


def test_only_the_chosen_transport_is_loaded():
    """Memory loads no redis."""
    code = (
        "import sys; from hyperbus.transports.connect import connect;"
        "connect('memory://', prefix='e', connect_timeout=1, command_timeout=1);"
        "sys.exit('redis' in sys.modules or 'hiredis' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
