"""Answers: a question, the passages that bear on it, and what the model made of them."""
