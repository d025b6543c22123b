"""LLM: a conversation and passages in, an answer out."""
