"""The recorder: what is done to models while tests run, held to the rules. Nothing here imports torch."""
