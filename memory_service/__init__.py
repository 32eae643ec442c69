"""Floor 1: what is remembered. Vectors, stores, recall. It never reads a log: changes are handed to it."""
