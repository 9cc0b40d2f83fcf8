"""Paints ghosts with Qwen-Image and a LoRA."""
