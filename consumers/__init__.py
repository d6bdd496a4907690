"""Consumers that are ready to run: `hyperbus run consumers`. Copy one to begin your own."""
