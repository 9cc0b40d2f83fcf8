"""The commands of ``loraperf``."""
