"""From an alert's transition to a phone that buzzes, once, and again when it is over: Alertmanager's part, on one box.

Alerts come in from the rules (or are pushed), are grouped, held back where another alert, a silence or the hour says so,
written down, and sent until the receiver has them. Terms, configuration file, payload and API are Alertmanager's.
"""
