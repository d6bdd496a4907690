"""What dead workers left, and what leaving ones give away."""
