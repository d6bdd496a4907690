"""What is said on a connection: commands, replies, names."""
