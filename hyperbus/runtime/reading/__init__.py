"""New entries, and those that a broken read hid."""
