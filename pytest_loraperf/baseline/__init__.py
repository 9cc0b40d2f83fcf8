"""Stored results that later runs are held to: what is stored, the file, the verdicts, and updating."""
