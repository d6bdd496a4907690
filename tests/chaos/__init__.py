"""Breaks everything that can be broken on one machine, and checks afterwards that nothing was lost."""
