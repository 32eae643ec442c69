"""The console: pages for people, made on the server, over the same home that the API serves."""
