#!/bin/sh
# Check the settings, write nginx's configuration from the templates, become nginx. With the argument `render`: only write.
# shellcheck disable=SC2016 # variables that envsubst and nginx replace, not this shell
set -eua

# Port for HTTP
: "${SLUICE_NGINX_HTTP_PORT:=8080}"
# Port for HTTPS
: "${SLUICE_NGINX_HTTPS_PORT:=8443}"
# Address to listen on
: "${SLUICE_NGINX_ADDRESS:=0.0.0.0}"
# The API as host:port; every address of the name is a replica
: "${SLUICE_NGINX_API:=api:8000}"
# The object store as host:port
: "${SLUICE_NGINX_S3:=s3:9000}"
# Name servers that know these hosts; Docker's own by default
: "${SLUICE_NGINX_RESOLVER:=127.0.0.11}"
# Seconds for which an address is believed; Swarm takes a task out of DNS about 2 s before it stops it
: "${SLUICE_NGINX_RESOLVER_SECONDS:=1}"
# off, or files: HTTPS with the certificate and key below, and HTTP only leads there
: "${SLUICE_NGINX_TLS:=off}"
# Certificate with its chain, PEM
: "${SLUICE_NGINX_TLS_CERTIFICATE:=/run/secrets/tls_certificate}"
# Private key of the certificate, PEM
: "${SLUICE_NGINX_TLS_KEY:=/run/secrets/tls_key}"
# on: browsers insist on HTTPS for two years, which cannot be taken back; needs TLS=files
: "${SLUICE_NGINX_HSTS:=off}"
# Networks (CIDR, separated by spaces) of proxies in front whose X-Forwarded-For and -Proto are believed
: "${SLUICE_NGINX_TRUSTED_PROXIES:=}"
# Streams (answers, job events) at a time with one access token
: "${SLUICE_NGINX_STREAMS_PER_TOKEN:=8}"
# Streams at a time from one address
: "${SLUICE_NGINX_STREAMS_PER_ADDRESS:=64}"
# Requests per second from one address
: "${SLUICE_NGINX_REQUESTS_PER_SECOND:=100}"
# Requests that may come at once beyond that rate
: "${SLUICE_NGINX_REQUESTS_BURST:=200}"
# Attempts to sign in per minute from one address
: "${SLUICE_NGINX_LOGINS_PER_MINUTE:=30}"
# File of the access log
: "${SLUICE_NGINX_ACCESS_LOG:=/dev/stdout}"
# Folder with the flags that sluice-mode sets
: "${SLUICE_NGINX_MODE_DIR:=/var/lib/sluice/mode}"
# Folder for the written configuration and temporary files
: "${SLUICE_NGINX_RUN_DIR:=/tmp/nginx}"
# Worker processes: a number, or auto for one per core
: "${SLUICE_NGINX_WORKERS:=auto}"
# Largest document accepted, in bytes: the same setting as the API's and the workers'
: "${SLUICE_INGEST_MAX_UPLOAD_BYTES:=1073741824}"
# Bucket of the object store
: "${SLUICE_S3_BUCKET:=sluice}"

set +a
# services/api/middleware.py: JSON_LIMIT and FORM_OVERHEAD.
json_bytes=1048576
form_overhead=65536
templates=$(cd "$(dirname "$0")" && pwd)/templates
# Debian keeps nginx where an ordinary user's shell does not look.
PATH=$PATH:/usr/sbin:/sbin

refuse() {
    printf 'sluice-nginx: %s\n' "$1" >&2
    exit 78 # EX_CONFIG of sysexits.h
}

# matches NAME PATTERN WHAT: the whole value, on one line, is as the extended regular expression says.
matches() {
    value=
    eval "value=\$$1"
    if [ "$(printf '%s' "$value" | wc -l)" -ne 0 ] || ! printf '%s\n' "$value" | grep -Eqx -e "$2"; then
        refuse "$1 is '$value', which is not $3. Set it so, or unset it to have the default."
    fi
}

# number NAME LEAST MOST
number() {
    matches "$1" '0|[1-9][0-9]{0,14}' "a whole number from $2 to $3"
    if [ "$value" -lt "$2" ] || [ "$value" -gt "$3" ]; then
        refuse "$1 is $value; it must be from $2 to $3. Set it so, or unset it to have the default."
    fi
}

file() {
    matches "$1" '/[^"\\$;{}]*' 'an absolute path without quotes, backslashes, $, ; or braces'
}

readable() {
    file "$1"
    [ -r "$value" ] ||
        refuse "$1 is $value, which cannot be read by user $(id -u), but SLUICE_NGINX_TLS is files. Put the file there, or set SLUICE_NGINX_TLS=off."
}

for name in HTTP_PORT HTTPS_PORT; do number "SLUICE_NGINX_$name" 1 65535; done
for name in STREAMS_PER_TOKEN STREAMS_PER_ADDRESS; do number "SLUICE_NGINX_$name" 1 65535; done
for name in REQUESTS_PER_SECOND REQUESTS_BURST LOGINS_PER_MINUTE; do number "SLUICE_NGINX_$name" 1 1000000; done
number SLUICE_NGINX_RESOLVER_SECONDS 1 3600
number SLUICE_INGEST_MAX_UPLOAD_BYTES 1 1000000000000
for name in ACCESS_LOG MODE_DIR RUN_DIR; do file "SLUICE_NGINX_$name"; done
for name in API S3; do
    matches "SLUICE_NGINX_$name" '(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}' 'a host and a port, such as api:8000'
done
matches SLUICE_NGINX_ADDRESS '[0-9.]+|\[[0-9a-fA-F:]+\]' 'an IP address (IPv6 in brackets)'
matches SLUICE_NGINX_RESOLVER '[0-9a-fA-F.:]+( [0-9a-fA-F.:]+)*|\[[0-9a-fA-F:]+\](:[0-9]+)?' 'the address of a name server, or several separated by spaces'
matches SLUICE_NGINX_TRUSTED_PROXIES '([0-9a-fA-F.:]+(/[0-9]{1,3})?( +|$))*' 'a list of networks such as "10.0.0.0/8 192.0.2.7"'
matches SLUICE_NGINX_TLS 'off|files' 'off or files'
matches SLUICE_NGINX_HSTS 'off|on' 'off or on'
matches SLUICE_NGINX_WORKERS 'auto|[1-9][0-9]{0,2}' 'auto or a number of processes'
matches SLUICE_S3_BUCKET '[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]' 'the name of a bucket'
case $SLUICE_S3_BUCKET in
    api | docs) refuse "SLUICE_S3_BUCKET is $SLUICE_S3_BUCKET, which is a path of the API. Choose another bucket." ;;
esac
if [ "$SLUICE_NGINX_TLS" = files ]; then
    readable SLUICE_NGINX_TLS_CERTIFICATE
    readable SLUICE_NGINX_TLS_KEY
elif [ "$SLUICE_NGINX_HSTS" = on ]; then
    refuse 'SLUICE_NGINX_HSTS is on, but SLUICE_NGINX_TLS is off: browsers would insist on HTTPS that is not there. Set SLUICE_NGINX_TLS=files, or leave HSTS to the proxy that ends TLS.'
fi
for program in nginx envsubst; do
    command -v "$program" >/dev/null || refuse "$program is not installed. On Debian: apt-get install nginx-light gettext-base."
done

# at_least VERSION LEAST: both as major.minor.patch.
at_least() {
    [ "$(printf '%s\n' "$1" "$2" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)" = "$2" ]
}

built=$(nginx -e stderr -V 2>&1)
version=$(printf '%s\n' "$built" | sed -n 's|^nginx version: nginx/\([0-9.]*\).*|\1|p')
openssl=$(printf '%s\n' "$built" | sed -n -e 's/.*running with OpenSSL \([0-9.]*\).*/\1/p' -e t -e 's/.*built with OpenSSL \([0-9.]*\).*/\1/p')

# What follows from the settings, for the templates alone.
export NGINX_USER=''
# Root's workers stay root's: the flags of sluice-mode may lie in a folder that is closed to others.
[ "$(id -u)" -ne 0 ] || NGINX_USER='user root root;'
export JSON_BYTES="$json_bytes"
export UPLOAD_BYTES="$((SLUICE_INGEST_MAX_UPLOAD_BYTES + form_overhead))"
# As many as a minute allows may come at once; after that they come evenly.
export LOGIN_BURST="$SLUICE_NGINX_LOGINS_PER_MINUTE"
export LOGIN_RETRY_SECONDS="$(((60 + SLUICE_NGINX_LOGINS_PER_MINUTE - 1) / SLUICE_NGINX_LOGINS_PER_MINUTE))"
export HSTS=''
[ "$SLUICE_NGINX_HSTS" = off ] || HSTS=max-age=63072000
# The form that nginx prefers since 1.25.1 and does not know before.
export HTTP2_OF_LISTEN='' HTTP2='http2 on;'
at_least "$version" 1.25.1 || { HTTP2_OF_LISTEN=' http2' && HTTP2=''; }
export TLS_CURVES=X25519MLKEM768:X25519:prime256v1:secp384r1
at_least "${openssl:-0}" 3.5.0 || TLS_CURVES=X25519:prime256v1:secp384r1

run=$SLUICE_NGINX_RUN_DIR
mkdir -p "$run/temp" 2>/dev/null ||
    refuse "SLUICE_NGINX_RUN_DIR is $run, where user $(id -u) cannot write. In a read-only container mount a tmpfs there."
{
    printf 'real_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n'
    for network in $SLUICE_NGINX_TRUSTED_PROXIES; do printf 'set_real_ip_from %s;\n' "$network"; done
    printf 'geo $realip_remote_addr $from_trusted_proxy {\n    default 0;\n'
    for network in $SLUICE_NGINX_TRUSTED_PROXIES; do printf '    %s 1;\n' "$network"; done
    printf '}\n'
} >"$run/trusted-proxies.conf"

variables=$(sed -n 's/^: "\(\${SLUICE_[A-Z0-9_]*\):=.*/\1}/p' "$0" | tr '\n' ' ')
variables="$variables"'${NGINX_USER} ${JSON_BYTES} ${UPLOAD_BYTES} ${LOGIN_BURST} ${LOGIN_RETRY_SECONDS} ${HSTS} ${HTTP2_OF_LISTEN} ${HTTP2} ${TLS_CURVES}'
for template in "$templates"/*.template; do
    name=${template##*/}
    envsubst "$variables" <"$template" >"$run/${name%.template}"
done
[ "${1:-}" != render ] || exit 0

nginx -e stderr -t -q -p "$run/" -c "$run/nginx.conf" ||
    refuse "nginx refuses the configuration in $run, as it says above. If a setting caused it, mend that."
exec nginx -e stderr -p "$run/" -c "$run/nginx.conf" -g 'daemon off;'
