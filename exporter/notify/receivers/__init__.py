"""The endpoints: each sends one notification once, and says what became of it as a value."""
