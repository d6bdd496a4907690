"""How fast hyperbus is: one file a question, and one runner, `python -m benchmarks.run`."""
