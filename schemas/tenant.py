"""What a tenant may be called."""

from __future__ import annotations

import re

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
DEFAULT_TENANT = "default"
