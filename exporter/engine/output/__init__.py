"""The engine's output: followed in its file, read line by line, searched for the cause of an end."""
