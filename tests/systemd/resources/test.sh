#!/usr/bin/env bash
# Bounds on what children use, and kills for want of memory, under a real systemd. Run by ../boot, with the program
# procbroker, ../requests.bash and the units beside it. Status 77: systemd has no memory controller to delegate here.

# shellcheck source-path=SCRIPTDIR source=../requests.bash
source /scenario/requests.bash

readonly SKIPPED=77

# Takes more and more memory, as long as it lives.
readonly EATER='
taken = []
while True:
    taken.append(bytearray(1 << 20))
'

# look_up NAME: sets $pid and $group, the folder of its control group.
look_up() {
    request get "{\"target\":\"$1\"}"
    pid=$(field child.pid)
    group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
}

# bound NAME FILE: what a file of its control group says.
bound() {
    look_up "$1"
    cat "$group/$2"
}

install_and_start() {
    install -m 0755 /scenario/procbroker /usr/local/bin/procbroker
    systemctl start procbroker.socket
    request status '{}'
    equal "the service" active "$(systemctl is-active procbroker.service)"
}

without_a_controller_nothing_is_started() {
    local controllers
    controllers=$(field facilities.controllers)
    case " $controllers " in
        *' memory '*) return ;;
    esac
    request create '{"command":["true"],"resources":{"memory_max":"32M"}}'
    grep -q '"kind":"unsupported"' <<<"$reply"
    grep -q 'cgroup.controllers' <<<"$reply"
    request list '{"all":true}'
    equal "the children" '[]' "$(field children)"
    passed "a create with a bound is refused, and says what is missing"
    printf 'no memory controller is delegated to a service here: %s\n' "$controllers"
    exit "$SKIPPED"
}

bounds_are_set_before_the_program_runs() {
    request create "$(python3 -c '
import json
see = "cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.max >/run/first-sight; exec sleep infinity"
print(json.dumps({"name": "other", "command": ["/bin/sh", "-c", see], "resources":
    {"memory_max": "64M", "memory_high": "60M", "cpu_weight": 50, "cpu_max": "150%", "pids_max": 20}}))')"
    equal "the outcome of create" created "$(field outcome)"
    equal "memory.max of other" 67108864 "$(bound other memory.max)"
    equal "memory.high of other" 62914560 "$(bound other memory.high)"
    equal "cpu.weight of other" 50 "$(bound other cpu.weight)"
    equal "cpu.max of other" "150000 100000" "$(bound other cpu.max)"
    equal "pids.max of other" 20 "$(bound other pids.max)"
    equal "who is in the service's own group" "" "$(cat "$GROUP/cgroup.procs")"
    equal "who is in the leaf" "$(property MainPID)" "$(cat "$GROUP/broker/cgroup.procs")"
    passed "a child has its bounds, and the broker is in a leaf of its own"
}

one_over_its_memory_is_killed_and_restarted_and_told_so() {
    local before params
    look_up other
    before=$pid
    params=$(python3 -c '
import json, sys
print(json.dumps({"name": "eater", "command": ["python3", "-c", sys.argv[1]],
    "restart": {"policy": "on-failure", "max": 2, "backoff": 0.01},
    "cleanup": {"command": ["/bin/sh", "-c",
        "cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.max >/run/cleanup-bound"]},
    "resources": {"memory_max": "32M"}}))' "$EATER")
    request create "$params"
    equal "the outcome of create" created "$(field outcome)"
    request wait '{"target":"eater","timeout":60}'
    equal "the state of eater" ended "$(field child.state)"
    equal "its restarts" 2 "$(field child.restarts)"
    equal "its exit" "SIGKILL exited true true false" \
        "$(for member in signal reason oom gave_up forced; do field "child.exit.$member"; done | xargs)"
    equal "its cleanup" true "$(field child.cleanup.ok)"
    equal "the bound of its cleanup" max "$(cat /run/cleanup-bound)"
    look_up other
    equal "the pid of other" "$before" "$pid"
    equal "the state of other" running "$(field child.state)"
    equal "what other was born with" 67108864 "$(cat /run/first-sight)"
    equal "the service" active "$(systemctl is-active procbroker.service)"
    passed "a child over its memory is killed and restarted by its policy, told so, and nobody else is touched"
}

an_end_that_is_no_kill_for_memory_is_not_told_as_one() {
    request create '{"name":"plain","command":["/bin/sh","-c","kill -s KILL $$"],"resources":{"memory_max":"32M"}}'
    request wait '{"target":"plain","timeout":60}'
    equal "its exit" "SIGKILL missing" "$(field child.exit.signal) $(field child.exit.oom)"
    passed "a child that is killed for another cause is not told as out of memory"
}

bounds_outlive_the_broker() {
    local before broker
    look_up other
    before=$pid
    broker=$(property MainPID)
    kill -s KILL "$broker"
    look_up other
    equal "memory.max of other after a crash" 67108864 "$(bound other memory.max)"
    equal "pids.max of other after a crash" 20 "$(bound other pids.max)"
    equal "the pid of other" "$before" "$pid"
    [ "$(property MainPID)" != "$broker" ]
    request status '{}'
    grep -qw memory <<<"$(field facilities.controllers)"
    systemctl reload procbroker.service
    equal "memory.max of other after an upgrade" 67108864 "$(bound other memory.max)"
    request restart '{"target":"other"}'
    [ "$(field children)" != missing ]
    look_up other
    equal "memory.max of other after a restart" 67108864 "$(bound other memory.max)"
    [ "$pid" != "$before" ]
    passed "bounds outlive a crash of the broker and an upgrade, and hold for the next run"
}

a_kill_under_the_next_broker_is_told_too() {
    local broker
    mkfifo /run/eat
    request create "$(python3 -c '
import json, sys
print(json.dumps({"name": "late", "command": ["python3", "-c", "open(\"/run/eat\").read()\n" + sys.argv[1]],
    "resources": {"memory_max": "32M"}}))' "$EATER")"
    equal "the outcome of create" created "$(field outcome)"
    broker=$(property MainPID)
    kill -s KILL "$broker"
    # Before, after, or while the next broker starts: the bound is there again when it answers.
    request status '{}'
    echo go >/run/eat
    request wait '{"target":"late","timeout":60}'
    equal "its exit" "exited true" "$(field child.exit.reason) $(field child.exit.oom)"
    passed "a child of an earlier broker that is killed for want of memory is told so"
}

stop_leaves_nothing() {
    systemctl stop procbroker.service
    equal "the result of the service" success "$(property Result)"
    [ ! -e "$GROUP" ]
    passed "a stop leaves no group"
}

install_and_start
without_a_controller_nothing_is_started
bounds_are_set_before_the_program_runs
one_over_its_memory_is_killed_and_restarted_and_told_so
an_end_that_is_no_kill_for_memory_is_not_told_as_one
bounds_outlive_the_broker
a_kill_under_the_next_broker_is_told_too
stop_leaves_nothing
