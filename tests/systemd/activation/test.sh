#!/usr/bin/env bash
# Socket activation, an orderly stop, and an exit when idle, under a real systemd. Run by ../boot, with the
# program procbroker, the units procbroker.socket and procbroker.service, and the README beside it.

# shellcheck source-path=SCRIPTDIR source=../requests.bash
source /scenario/requests.bash

# paste PART: pastes the one block of the README that has this text into a shell, in a checkout in which the program is
# built already.
paste() {
    local text
    text=$(awk -v part="$1" '
        /^```/ { if (index(text, part)) printf "%s", text; inside = /^```sh$/; text = ""; next }
        inside { text = text $0 "\n" }' /scenario/README.md)
    [ -n "$text" ] || { echo "no block of the README has $1"; return 1; }
    (cd /run/checkout && bash -exc "cargo() { :; }; $text")
}

units_are_installed_and_accepted() {
    local said
    mkdir -p /run/checkout/broker/systemd /run/checkout/target/release
    cp /scenario/procbroker.socket /scenario/procbroker.service /run/checkout/broker/systemd/
    ln -s /scenario/procbroker /run/checkout/target/release/procbroker
    rm /etc/systemd/system/procbroker.*
    paste 'systemctl enable --now procbroker.socket'
    equal "at boot" enabled "$(systemctl is-enabled procbroker.socket)"
    said=$(systemd-analyze verify procbroker.socket procbroker.service 2>&1) || { echo "$said"; return 1; }
    equal "what systemd-analyze has to say" "" "$said"
    passed "the units are installed as the README says, and systemd accepts them"
}

first_request_starts_the_broker() {
    equal "access to the socket" "600 root root" "$(stat --format='%a %U %G' "$SOCKET")"
    equal "access to its folder" "755" "$(stat --format='%a' "${SOCKET%/*}")"
    equal "the service before a request" inactive "$(systemctl is-active procbroker.service || true)"

    request status '{}'
    equal "the service after a request" active "$(systemctl is-active procbroker.service)"
    equal "the pid in the status" "$(property MainPID)" "$(field pid)"
    equal "shutting_down in the status" false "$(field shutting_down)"
    equal "access to the state folder" "700 root root" "$(stat --format='%a %U %G' /var/lib/procbroker)"
    passed "the first request starts the broker and is answered"
}

# The child leaves its process group a descendant that ignores SIGTERM, says that both are there, and notes its end.
readonly CHILD='
import signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
daemon = "trap \"\" TERM; echo $$ >/run/guest-is-there; exec sleep infinity"
subprocess.Popen(["bash", "-c", daemon], start_new_session=True)
signal.sigwait([signal.SIGTERM])
with open("/run/child.log", "a") as log:
    log.write("stopped\n")
'

child_lives_inside_the_service() {
    local params pid
    params=$(python3 -c '
import json, sys
print(json.dumps({"name": "guest", "command": ["python3", "-c", sys.argv[1]], "cleanup": {
    "command": ["/bin/sh", "-c", "echo cleaned up after $PROCBROKER_EXIT_CODE >>/run/child.log"]}}))' "$CHILD")
    mkfifo /run/guest-is-there
    request create "$params"
    equal "the outcome of create" created "$(field outcome)"
    equal "the state of the child" running "$(field child.state)"
    equal "what holds the descendants of the child" cgroup "$(field child.containment)"
    hear /run/guest-is-there >/run/descendant.pid
    for pid in "$(field child.pid)" "$(cat /run/descendant.pid)"; do
        grep -q '^0::/system\.slice/procbroker\.service/' "/proc/$pid/cgroup"
    done
    [ -n "$(property StatusText)" ]
    passed "a child lives in a group of its own below the service: $(property StatusText)"
}

stop_leaves_nothing() {
    local child descendant
    request get '{"target":"guest"}'
    child=$(field child.pid)
    descendant=$(cat /run/descendant.pid)
    systemctl stop procbroker.service
    equal "the result of the service" success "$(property Result)"
    equal "the exit status of the broker" "1 0" "$(property ExecMainCode) $(property ExecMainStatus)"
    equal "what the child and its cleanup wrote" $'stopped\ncleaned up after 0' "$(cat /run/child.log)"
    [ ! -e "/proc/$child" ]
    [ ! -e "/proc/$descendant" ]
    [ ! -e "$GROUP" ]
    # Nobody but the broker had to use force.
    journalctl --sync
    equal "what systemd had to kill" "" "$(journalctl --boot --unit=procbroker.service --output=cat |
        grep -E 'Killing process|remains running' || true)"
    passed "a stop ends the child and its descendant in order"
}

# Its second line is too long for a datagram.
output_is_in_the_journal() {
    local script='echo hello; printf "%040000d\n" 1; exec sleep infinity' pid entry
    request create "$(python3 -c 'import json, sys
print(json.dumps({"name": "writer", "command": ["/bin/sh", "-c", sys.argv[1]], "labels": {"pool": "render"}}))' "$script")"
    pid=$(field child.pid)
    entry=$(timeout 60 python3 -c '
import json, subprocess
journal = subprocess.Popen(["journalctl", "--boot", "--follow", "--lines=all", "--all", "--output=json",
                            "PROCBROKER_CHILD_NAME=writer"], stdout=subprocess.PIPE)
short, long = (json.loads(journal.stdout.readline()) for _ in range(2))
journal.kill()
names = ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "PROCBROKER_LABEL_POOL", "_SYSTEMD_UNIT", "OBJECT_PID"]
print(*(short[name] for name in names), len(long["MESSAGE"]))')
    equal "what is in the journal" "hello 6 writer render procbroker.service $pid 40000" "$entry"
    passed "what a child writes is in the journal, with the child in fields"
}

members_of_a_group_are_let_in() {
    local child
    paste SocketGroup=www-data
    equal "access to the socket" "660 root www-data" "$(stat --format='%a %U %G' "$SOCKET")"
    child=$(setpriv --reuid www-data --regid www-data --clear-groups \
        procbroker create --socket "$SOCKET" -- sleep infinity)
    request get "{\"target\":\"$child\"}"
    equal "whose child it is" www-data "$(stat --format=%U "/proc/$(field child.pid)")"
    sed -i 's/"$/ --children-log journal"/' /etc/default/procbroker
    systemctl restart procbroker.service
    output_is_in_the_journal
    rm -r /etc/systemd/system/procbroker.socket.d /etc/default/procbroker
    systemctl stop procbroker.service
    systemctl daemon-reload && systemctl restart procbroker.socket
    passed "a web user is let in as the README says"
}

idle_broker_exits_and_comes_back() {
    local first
    mkfifo /run/went-idle
    mkdir -p /run/systemd/system/procbroker.service.d
    cat >/run/systemd/system/procbroker.service.d/idle.conf <<'UNIT'
[Unit]
OnSuccess=went-idle.service
[Service]
ExecStart=
ExecStart=/usr/local/bin/procbroker serve --leaf-group --exit-when-idle 5
UNIT
    cat >/run/systemd/system/went-idle.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "$MONITOR_SERVICE_RESULT" >/run/went-idle'
UNIT
    systemctl daemon-reload

    request status '{}'
    first=$(field instance)
    equal "the result of an exit when idle" success "$(hear /run/went-idle)"
    equal "the service after an exit when idle" inactive "$(systemctl is-active procbroker.service || true)"

    request status '{}'
    equal "the service after another request" active "$(systemctl is-active procbroker.service)"
    [ "$(field instance)" != "$first" ]
    passed "an idle broker exits, and another request starts a new one"
}

units_are_installed_and_accepted
first_request_starts_the_broker
child_lives_inside_the_service
stop_leaves_nothing
members_of_a_group_are_let_in
idle_broker_exits_and_comes_back
