"""Every question there is, in the order of the table."""

from __future__ import annotations

import importlib

from benchmarks.question import Question

_MODULES = (
    *("ceilings", "publish_many", "publish_tasks", "publish_one", "publish_sync"),
    *("consume_one", "consume_batch", "consume_64", "both", "latency", "streams", "groups", "payloads"),
    *("recovery", "costs", "imports", "memory"),
)


def all_questions() -> list[Question]:
    """Return the questions about hyperbus, and the ceilings."""
    return [
        question for name in _MODULES for question in importlib.import_module(f"benchmarks.questions.{name}").QUESTIONS
    ]
