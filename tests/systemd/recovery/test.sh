#!/usr/bin/env bash
# Crashes of the broker, and stops in which it is killed, under a real systemd. Run by ../boot, with the program
# procbroker, ../requests.bash and the units beside it.

# shellcheck source-path=SCRIPTDIR source=../requests.bash
source /scenario/requests.bash

# create NAME SCRIPT [PARAMETERS]: starts a child that runs a shell script, and leaves a line in /run/cleanups after it.
create() {
    local params
    params=$(python3 -c '
import json, sys
name, script, more = sys.argv[1:]
note = "echo $PROCBROKER_CHILD_NAME ${PROCBROKER_EXIT_CODE-$PROCBROKER_EXIT_SIGNAL} >>/run/cleanups"
print(json.dumps({"name": name, "command": ["/bin/bash", "-c", script],
                  "cleanup": {"command": ["/bin/sh", "-c", note]}} | json.loads(more)))' "$1" "$2" "${3-{\}}")
    request create "$params"
    equal "the outcome of create $1" created "$(field outcome)"
}

# look_up NAME: sets $pid.
look_up() {
    request get "{\"target\":\"$1\"}"
    pid=$(field child.pid)
}

# Waits until these processes have ended, whoever reaps them.
await_end() {
    python3 -c '
import os, select, sys
for pid in map(int, sys.argv[1:]):
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        continue
    if not select.select([pidfd], [], [], 60)[0]:
        sys.exit(f"process {pid} has not ended")' "$@"
}

# These processes have ended. PID 1, which inherits them in a crash, may not have reaped them so far.
have_ended() {
    local pid
    for pid in "$@"; do
        ! grep -s '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status" || { echo "of process $pid"; return 1; }
    done
}

# ended NAME MEMBER VALUE: the child has ended so.
ended() {
    request wait "{\"target\":\"$1\",\"timeout\":60}"
    equal "the state of $1" ended "$(field child.state)"
    equal "how $1 ended" "$3" "$(field "child.exit.$2")"
}

crash() { kill -s KILL "$(property MainPID)"; }

install_and_start() {
    install -m 0755 /scenario/procbroker /usr/local/bin/procbroker
    touch /run/cleanups /run/stopped
    systemctl start procbroker.socket
    request status '{}'
    equal "the service" active "$(systemctl is-active procbroker.service)"
}

# The next broker does not get to its start before it is let through the gate.
close_the_gate() {
    [ -p /run/gate ] || mkfifo /run/at-the-gate /run/gate
    mkdir -p /run/systemd/system/procbroker.service.d
    cat >/run/systemd/system/procbroker.service.d/gate.conf <<'UNIT'
[Service]
ExecStartPre=/bin/sh -c 'echo here >/run/at-the-gate; read -r line </run/gate'
UNIT
    systemctl daemon-reload
}

open_the_gate() {
    rm /run/systemd/system/procbroker.service.d/gate.conf
    echo open >/run/gate
    systemctl daemon-reload
}

what_ended_without_a_broker_is_on_record() {
    local name pid pids=() first
    for name in zero seven; do
        mkfifo "/run/$name"
    done
    create zero 'read -r line </run/zero; exit 0'
    create seven 'read -r line </run/seven; exit 7'
    for name in killed terminated lives idles; do
        create "$name" 'exec sleep infinity'
    done
    for name in zero seven killed terminated lives; do
        look_up "$name"
        pids+=("$pid")
    done
    first=$(property MainPID)

    close_the_gate
    crash
    equal "the next broker" here "$(hear /run/at-the-gate)"
    [ ! -e "/proc/$first" ]
    echo go >/run/zero
    echo go >/run/seven
    kill -s KILL "${pids[2]}"
    kill -s TERM "${pids[3]}"
    await_end "${pids[@]:0:4}"
    open_the_gate

    ended zero code 0
    ended seven code 7
    ended killed signal SIGKILL
    ended terminated signal SIGTERM
    for name in zero seven killed terminated; do
        request get "{\"target\":\"$name\"}"
        equal "why $name ended" exited "$(field child.exit.reason)"
        equal "the cleanup of $name" true "$(field child.cleanup.ok)"
    done
    [ "$(property MainPID)" != "$first" ]
    equal "the cleanups" "killed SIGKILL seven 7 terminated SIGTERM zero 0" "$(sort /run/cleanups | xargs)"
    look_up lives
    equal "the pid of the one that lives" "${pids[4]}" "$pid"
    passed "what ended while there was no broker is on record with how, and was cleaned up after"
}

what_lives_is_managed_again() {
    local pid
    look_up lives
    equal "its state" running "$(field child.state)"
    request create '{"name":"lives","command":["sleep","1"]}'
    grep -q '"kind":"name_taken"' <<<"$reply"
    request create '{"name":"lives","command":["/bin/bash","-c","exec sleep infinity"],"if_exists":"reuse"}'
    equal "the outcome of a create with reuse" existing "$(field outcome)"
    equal "the pid of the child that is reused" "$pid" "$(field child.pid)"
    request destroy '{"target":"lives"}'
    have_ended "$pid"
    ended lives signal SIGTERM
    equal "why it ended" destroyed "$(field child.exit.reason)"
    equal "its cleanup" "lives SIGTERM" "$(grep ^lives /run/cleanups)"
    passed "what lives is managed again: its name is held, and it can be destroyed"
}

what_is_told_without_a_broker_is_heard() {
    local pid tell='import os, signal, socket
open("/run/tell").readline()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1\nSTATUS=it is up", os.environ["NOTIFY_SOCKET"])
open("/run/told", "w").write("told\n")
signal.pause()'
    mkfifo /run/tell /run/told
    create teller "exec python3 -c '$tell'" '{"ready":"notify","no_wait":true}'
    look_up teller
    equal "its state before" starting "$(field child.state)"
    close_the_gate
    crash
    equal "the next broker" here "$(hear /run/at-the-gate)"
    echo go >/run/tell
    equal "the child" told "$(hear /run/told)"
    open_the_gate
    request wait '{"target":"teller","until":"ready","timeout":20}'
    equal "its state after" running "$(field child.state)"
    equal "its pid" "$pid" "$(field child.pid)"
    equal "what it has told" "it is up" "$(field child.status_text)"
    request destroy '{"target":"teller"}'
    passed "what a child tells while there is no broker is heard by the next one"
}

ten_crashes_in_a_row_lose_nothing() {
    local round pid broker idle
    look_up idles
    idle=$pid
    for round in {1..10}; do
        broker=$(property MainPID)
        mkfifo "/run/round-$round"
        create "round-$round" "read -r line </run/round-$round; exit $round"
        kill -s KILL "$broker"
        # Before, after, or while the next broker starts.
        echo go >"/run/round-$round"
        ended "round-$round" code "$round"
        [ "$(property MainPID)" != "$broker" ]
        equal "the cleanup of round $round" "round-$round $round" "$(grep -x "round-$round .*" /run/cleanups)"
        look_up idles
        equal "the child that lives on" "$idle" "$pid"
        equal "its state" running "$(field child.state)"
    done
    [ -e "/proc/$pid" ]
    passed "ten crashes in a row lose no child and no exit status"
}

# create_waiting NAME ends|stays ORDER GRACE: sets $child and $descendant.
create_waiting() {
    create "$1" "exec python3 /scenario/child.py $1 $2" "{\"stop_order\":$3,\"stop\":[{\"signal\":\"SIGTERM\",\"grace\":$4}]}"
    child=$(field child.pid)
    descendant=$(hear /run/there)
}

upgrade_disturbs_nobody() {
    local pid broker instance idle
    look_up idles
    idle=$pid
    broker=$(property MainPID)
    request status '{}'
    instance=$(field instance)
    systemctl reload procbroker.service
    request status '{}'
    [ "$(field instance)" != "$instance" ]
    equal "the pid of the broker" "$broker" "$(property MainPID)"
    look_up idles
    equal "the pid of the child" "$idle" "$pid"
    # What it stored goes on being stored.
    mkfifo /run/upgraded
    create upgraded 'read -r line </run/upgraded; exit 3'
    crash
    echo go >/run/upgraded
    ended upgraded code 3
    passed "systemctl reload exchanges the program, and nothing else"
}

restart_ends_all_in_order() {
    local child descendant pid all=() name order
    for name in last:2 first:0 middle:1; do
        order=${name#*:}
        create_waiting "${name%:*}" ends "$order" 30
        all+=("$child" "$descendant")
    done
    look_up idles
    all+=("$pid")
    systemctl restart procbroker.service
    have_ended "${all[@]}"
    equal "the order of the stops" "first middle last" "$(xargs </run/stopped)"
    request list '{}'
    equal "the children after a restart" '[]' "$(field children)"
    for name in first middle last; do
        equal "the cleanup of $name" "$name 0" "$(grep "^$name" /run/cleanups)"
    done
    equal "the cleanup of idles" "idles SIGTERM" "$(grep ^idles /run/cleanups)"
    request get '{"target":"first"}'
    equal "why it ended" shutdown "$(field child.exit.reason)"
    passed "systemctl restart ends all children in their order, and runs their cleanups"
}

stop_leaves_nothing_though_the_broker_is_killed_in_it() {
    local child descendant other
    create_waiting stubborn stays 0 600
    create second 'exec sleep infinity' '{"stop_order":1}'
    other=$(field child.pid)
    systemctl stop --no-block procbroker.service
    equal "who was asked to stop" stubborn "$(hear /run/asked)"
    crash
    # The same job, until it is done.
    systemctl stop procbroker.service
    have_ended "$child" "$descendant" "$other"
    [ ! -e "$GROUP" ]
    equal "the cleanups until then" "" "$(grep -E '^(stubborn|second)' /run/cleanups || true)"
    equal "the service" failed "$(systemctl is-active procbroker.service || true)"

    for child in stubborn second; do
        request wait "{\"target\":\"$child\",\"timeout\":60}"
        equal "the state of $child" ended "$(field child.state)"
        equal "the cleanups of $child" 1 "$(grep -c "^$child" /run/cleanups)"
    done
    passed "systemctl stop leaves nothing though the broker is killed in it, and the next one runs the cleanups"
}

# field_of_the_log MATCH... FIELD: of the last entry of the broker's own log that matches.
field_of_the_log() {
    journalctl --sync
    journalctl --boot --unit=procbroker.service --output=json --lines=1 SYSLOG_IDENTIFIER=procbroker "${@:1:$#-1}" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "${@: -1}"
}

the_log_has_fields_in_the_journal() {
    create noted 'exit 3'
    ended noted code 3
    equal "the priority of what happens" 6 "$(field_of_the_log PROCBROKER_CHILD=noted PROCBROKER_REASON=exited PRIORITY)"
    equal "who has created it" "create 0 created" "$(for name in METHOD UID OUTCOME; do
        field_of_the_log PROCBROKER_CHILD=noted PROCBROKER_TARGET=audit "PROCBROKER_$name"
    done | xargs)"
    create broken 'exec sleep infinity' '{"cleanup":{"command":["false"]}}'
    request destroy '{"target":"broken"}'
    equal "the priority of a warning" 4 "$(field_of_the_log PROCBROKER_CHILD=broken PRIORITY=4 PRIORITY)"
    passed "the broker's own log is in the journal with priorities and fields"
}

mkfifo /run/there /run/asked
install_and_start
what_ended_without_a_broker_is_on_record
what_lives_is_managed_again
what_is_told_without_a_broker_is_heard
ten_crashes_in_a_row_lose_nothing
upgrade_disturbs_nobody
restart_ends_all_in_order
stop_leaves_nothing_though_the_broker_is_killed_in_it
the_log_has_fields_in_the_journal
