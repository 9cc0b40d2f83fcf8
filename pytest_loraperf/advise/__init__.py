"""Advice from what was measured: which strategy to take, and the code to paste for it. No torch here."""
