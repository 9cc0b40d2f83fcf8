"""The linter: finds wrong orders of operations in source, without running it."""
