"""Is the engine well, and what follows: hang, health and restart verdicts, and the probes that feed them."""
