"""The order guard: operations on a model as they happen or as they are written, and the rules on their order."""
