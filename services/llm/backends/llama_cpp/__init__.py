"""The GGUF backend: language models through llama.cpp."""
