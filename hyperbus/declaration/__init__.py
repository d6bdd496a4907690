"""What you declare: consumers, retry policy, middleware, and the delivery a handler sees. No I/O."""
