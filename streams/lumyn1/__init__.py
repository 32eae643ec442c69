"""Packs that `lumyn` 1.x (up to 1.3.6 on PyPI) wrote: read for what they hold, and no further."""
