"""Offloading by streaming: blocks come from pinned host memory ahead of their call, at the speed of the bus.

diffusers' group offloading does the same for its own models, but waits for each copy on the CPU, allocates each
tensor anew, and keeps no block where a card has room for it.
"""

from pytest_loraperf.backends.streaming.pipeline import Offloaded, lifted, offloaded, stream_blocks

__all__ = ["Offloaded", "lifted", "offloaded", "stream_blocks"]
