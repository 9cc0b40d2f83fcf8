"""Measuring: time by interleaved rounds, memory by phases, and how far two outputs are apart."""
