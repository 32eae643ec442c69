"""The fixed limits of what is accepted, in one place."""

MAX_BODY_BYTES = 256 * 1024
MAX_ENVELOPE_BYTES = 3 * MAX_BODY_BYTES  # a sealed request: its box in base64, and its clear part
MAX_DEPTH = 64
MAX_RECORD_DEPTH = 80  # a record or an event holds a whole request, some levels down
MAX_SAFE_INTEGER = 2**53 - 1
MAX_POLICY_BYTES = 4 * 1024 * 1024
MAX_RECORD_BYTES = 4 * 1024 * 1024 - 65536  # what the `records` topic takes, less room for the message's frame
MAX_PACK_BYTES = 64 * 1024 * 1024
MAX_TEXT = 4096
IDEMPOTENCY_WINDOW_MS = 7 * 24 * 3600 * 1000
MAX_CHECKPOINT_LEAVES = 8192  # of 44 bytes in base64: an event stays below half the 1 MB that brokers take by default
