"""The commands that do what promtool does: check rules, test rules, query."""
