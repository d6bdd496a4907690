"""Bugs to plant in workers: each module replaces a part of hyperbus by a broken one when it is imported."""
