#!/bin/sh
# What the edge lets through: `sluice-mode normal|readonly|maintenance|show`. It takes effect with the next request.
set -eu

folder=${SLUICE_NGINX_MODE_DIR:-/var/lib/sluice/mode}

fail() {
    printf 'sluice-mode: %s\n' "$1" >&2
    exit "$2"
}

shown() {
    for mode in maintenance readonly; do
        if [ -e "$folder/$mode" ]; then
            echo "$mode"
            return
        fi
    done
    echo normal
}

mode=${1:-show}
[ $# -le 1 ] || mode=
case $mode in
    show) ;;
    normal) rm -f "$folder/readonly" "$folder/maintenance" || fail "$folder cannot be written by user $(id -u)." 1 ;;
    readonly | maintenance)
        { [ -d "$folder" ] && : >"$folder/$mode"; } 2>/dev/null ||
            fail "$folder is not there, or cannot be written by user $(id -u). SLUICE_NGINX_MODE_DIR names the folder." 1
        # The new flag first: between the two, a request must not find none.
        [ "$mode" = maintenance ] || rm -f "$folder/maintenance"
        [ "$mode" = readonly ] || rm -f "$folder/readonly"
        ;;
    *) fail 'usage: sluice-mode normal|readonly|maintenance|show' 64 ;;
esac
shown
