"""A plugin of pytest: what is about chance or time by nature may be tried a second time, and is then named at the end.

For tests marked `second_try("why")`. There are few of them: a test holds their number.
"""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.runner import runtestprotocol

#: The outcome of a try that failed and was not the last.
OUTCOME = "rerun"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a marked test, and once more if it failed."""
    if item.get_closest_marker("second_try") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(report.failed for report in reports):
        for report in reports:
            if report.failed:
                report.outcome = OUTCOME  # type: ignore[assignment]
                item.ihook.pytest_runtest_logreport(report=report)
        assert isinstance(item, pytest.Function)
        item._initrequest()  # the fixtures of the first try are forgotten
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_report_teststatus(report: pytest.TestReport) -> Any:
    """Show such a try as R."""
    return (OUTCOME, "R", ("RERUN", {"yellow": True})) if report.outcome == OUTCOME else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that needed it, and why they were forgiven."""
    reports = terminalreporter.stats.get(OUTCOME, [])
    if reports:
        terminalreporter.write_sep("=", "flaky: failed, and were tried a second time", yellow=True)
    for report in reports:
        terminalreporter.write_line(f"FLAKY {report.nodeid}: {_first_line(report)}")


def _first_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash is not None else str(report.longrepr)).splitlines()[0]
