"""The contracts of `hyperbus.transport` on Redis >= 7.0 and Valkey >= 7.2; the only package that talks to a server."""
