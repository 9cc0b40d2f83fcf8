"""Peak VRAM of a strategy, on a machine without a GPU: the real pipeline code, run on tensors without values."""
