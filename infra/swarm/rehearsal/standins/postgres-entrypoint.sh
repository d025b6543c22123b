#!/bin/sh
# Stands for the entrypoint of the postgres image: a cluster on the first start, then the server, as its own user.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres /var/lib/postgresql
    chmod 700 "$PGDATA"
    # shellcheck disable=SC2086 # several arguments in one variable, as the image has it
    setpriv --reuid=postgres --regid=postgres --clear-groups initdb --pgdata="$PGDATA" --username=postgres \
        --auth=scram-sha-256 --pwfile="$POSTGRES_PASSWORD_FILE" ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@" \
    -c "listen_addresses=*" -c unix_socket_directories= -c huge_pages=off
