"""Service level objectives: from a spec to recording and alerting rules."""
