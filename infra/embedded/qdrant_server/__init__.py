"""Qdrant without Docker: the part of Qdrant's REST API that `qdrant-client` calls from us, on Qdrant's own engine.

Requests are read with the client's own models and carried out by `qdrant-edge-py`, so names, defaults and scores are
Qdrant's. What real Qdrant has and we do not use (clusters, snapshots, recommendations) is refused in words.
`tests/conformance/test_qdrant_api.py` says what is the same.
"""
