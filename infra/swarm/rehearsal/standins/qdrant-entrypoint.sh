#!/bin/sh
# Stands for Qdrant's entrypoint.
exec /opt/standin/bin/python -m infra.embedded.qdrant_server --host 0.0.0.0 --port 6333 --data /qdrant/storage
