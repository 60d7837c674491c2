# What every test.sh has in common: to be sourced by one. It asks a broker, and compares.
# shellcheck shell=bash disable=SC2034
set -Eeuo pipefail

readonly SOCKET=/run/procbroker/procbroker.sock
readonly GROUP=/sys/fs/cgroup/system.slice/procbroker.service
reply=

explain() {
    printf 'FAILED in line %s: %s\n' "$1" "$2"
    printf 'last reply: %s\n' "$reply"
    systemctl status --no-pager --full procbroker.socket procbroker.service || true
}
trap 'explain "$LINENO" "$BASH_COMMAND"' ERR

passed() { printf 'ok: %s\n' "$*"; }

# equal WHAT EXPECTED ACTUAL
equal() {
    [ "$2" = "$3" ] || { printf '%s: expected "%s", found "%s"\n' "$1" "$2" "$3"; return 1; }
}

# Sends one request of the method $1 with the parameters $2; its answer is in $reply.
request() {
    reply=$(printf '{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}\n' "$1" "$2" |
        timeout 60 socat -t 60 - "UNIX-CONNECT:$SOCKET")
}

# A field of the last result, its name given as a path: child.pid
field() {
    python3 -c '
import json, sys
value = json.loads(sys.argv[1])
for key in ["result", *sys.argv[2].split(".")]:
    value = value.get(key, "missing") if isinstance(value, dict) else "missing"
print(json.dumps(value) if isinstance(value, (bool, dict, list)) else value)' "$reply" "$1"
}

property() { systemctl show --property="$1" --value procbroker.service; }

# Reads what somebody says through the FIFO $1, as soon as it does. It is opened for reading and writing, so that
# opening it does not wait for the other side.
hear() {
    local said
    read -r -t 60 said <>"$1"
    printf '%s\n' "$said"
}
