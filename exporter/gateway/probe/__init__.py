"""What an engine that nobody asks would have answered, and how fast."""
