"""A private server for a folder."""
