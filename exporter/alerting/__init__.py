"""Rules: files, groups, states, templates."""
