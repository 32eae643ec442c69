"""Game days: what was decided once, decided again by today's policy and memory while things go wrong on purpose."""
