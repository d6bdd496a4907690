"""What the ready-made consumers are made of: where events leave the bus for browsers, databases, metrics and logs."""
