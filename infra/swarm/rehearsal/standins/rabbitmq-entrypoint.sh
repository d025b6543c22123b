#!/bin/sh
# Stands for the entrypoint of the rabbitmq image: the server runs as its user, who owns its data; anything else as root.
set -eu
if [ "$1" = rabbitmq-server ]; then
    chown -R rabbitmq:rabbitmq /var/lib/rabbitmq
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --clear-groups "$@"
fi
exec "$@"
