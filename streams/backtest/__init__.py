"""Backtest: what candidate policies would have done to past decisions, in one pass over a range of the log."""
