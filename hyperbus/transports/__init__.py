"""Where events are kept: one package or module for each kind of place. None of them knows what an event is."""
