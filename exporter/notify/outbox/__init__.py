"""What must outlive the process: notifications that are not delivered yet, and what the next daemon has to know."""
