"""The small HTTP server that metrics and health are shown on. It knows nothing about either."""
