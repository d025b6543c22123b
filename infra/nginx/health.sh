#!/bin/sh
# Whether nginx answers by itself: what is behind it has health checks of its own.
exec curl --silent --show-error --fail --output /dev/null --max-time 4 \
    "http://127.0.0.1:${SLUICE_NGINX_HTTP_PORT:-8080}/nginx-health"
