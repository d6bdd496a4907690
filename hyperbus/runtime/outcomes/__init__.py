"""What becomes of deliveries: acked, tried again, parked, dead-lettered."""
