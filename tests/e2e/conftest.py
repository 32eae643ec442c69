"""Fixtures of the end-to-end tests."""

from conftest_e2e import shell

__all__ = ["shell"]
