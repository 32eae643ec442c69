"""The HTTP API over a home."""
