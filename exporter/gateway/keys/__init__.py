"""API keys that the gateway checks itself: kept as digests in one file, each with its name, limits and priority."""
