"""What clients promise, tried against the real gateway."""
