"""Memory and record index on Qdrant: a neutral engine, its two clients (server and Edge), and the stores on it."""
