"""Floor 0: the contracts every other floor speaks in. Documents, canonical JSON, digests, errors, reason codes."""
