"""From entries in hand to handlers, and from what they return to outcomes."""
