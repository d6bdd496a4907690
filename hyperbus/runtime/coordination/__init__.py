"""What the processes and workers of a bus agree on: who lives, who may, what was born."""
