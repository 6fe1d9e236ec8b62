"""What clients saw, as series and as lines of the log."""
