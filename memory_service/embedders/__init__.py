"""Embedders: how free text becomes a unit vector (`protocol.py` says what one promises)."""
