"""One run: its verdicts and its results, whoever asked for them."""
