"""How often the verdicts are wrong: replayed on simulated noise and on what this machine was recorded doing."""
