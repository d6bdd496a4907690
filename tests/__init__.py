"""Tests of hyperbus, and what several of them share."""
