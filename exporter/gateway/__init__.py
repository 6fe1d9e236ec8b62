"""The gateway: a reverse proxy in front of the engines' OpenAI API that measures what clients really see."""
