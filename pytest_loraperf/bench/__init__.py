"""The bench: one model's pipelines, built when asked for and kept while they fit, and what is replayed on them."""
