"""The Kafka backend: one module knows the client library, the others build on it."""
