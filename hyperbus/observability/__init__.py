"""What is seen of a running bus: metrics, logs, health. It listens; it never steers."""
