"""What a worker holds: from the moment it is delivered until it is released."""
