"""How much is measured: in a minute, by default, or everything."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Depth(enum.IntEnum):
    """The least thorough form in which a question is asked."""

    QUICK = 0
    DEFAULT = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Form:
    """How a run is shaped.

    Attributes:
        depth: questions of a greater depth are not asked.
        rounds: how often each question is asked.
        warm_ups: rounds before those, whose figures are thrown away.
        factor: how many events, compared with the default form.
    """

    name: str
    depth: Depth
    rounds: int
    warm_ups: int
    factor: float


QUICK = Form("quick", Depth.QUICK, rounds=2, warm_ups=0, factor=0.5)
DEFAULT = Form("default", Depth.DEFAULT, rounds=5, warm_ups=1, factor=1)
FULL = Form("full", Depth.FULL, rounds=5, warm_ups=1, factor=2)
