"""Statistics of backtests and watched runs: pure, from counts and sums, each with its source. Imports scipy."""
