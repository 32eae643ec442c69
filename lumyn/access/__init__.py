"""Who may do what over HTTP: API keys, their tenant and roles, rate limits, and the audit of changes to keys."""
