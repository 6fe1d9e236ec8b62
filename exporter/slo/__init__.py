"""Service level objectives: a specification in Sloth's form becomes recording rules and burn rate alerts.

Everything here is a pure function of the specification's text, but for `command`.
"""
