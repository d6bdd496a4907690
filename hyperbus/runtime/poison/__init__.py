"""Entries that may kill their process."""
