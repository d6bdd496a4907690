"""Processes: starting them, watching them, stopping them. What runs inside one is the bus's business."""
