"""Runbooks that run: steps in a file, gone through one by one, recorded in the incident."""
