"""Answers of somebody else's model, over HTTP. Off unless it is configured: prompts leave this machine."""
