"""Embedding models in the form that EMB serves without PyTorch: how they are made, judged, read and run."""
