"""Bugs to plant in workers and producers: each module replaces a part of hyperbus by a broken one when it is imported."""
