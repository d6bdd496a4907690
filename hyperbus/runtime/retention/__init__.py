"""How long entries stay in their streams."""
