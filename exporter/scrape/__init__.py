"""The engine's page, over HTTP, into the daemon: fetched, read, normalised, shown."""
