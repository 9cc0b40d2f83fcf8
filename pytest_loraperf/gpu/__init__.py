"""The device: which one, what it can do, what the driver says of it."""
