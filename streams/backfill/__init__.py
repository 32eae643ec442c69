"""Backfills: what a new policy or a new model would do otherwise with past decisions."""
