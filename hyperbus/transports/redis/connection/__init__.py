"""Connections: where to, one that lives, and one that makes itself anew."""
