"""The demo: a small team of agents, and everything that listens to them, live."""
