#!/usr/bin/env bash
# The life of the Debian package on a machine with systemd. Run by ../systemd/boot, with ../systemd/requests.bash and two
# versions of the package beside it.

# shellcheck source-path=SCRIPTDIR source=../systemd/requests.bash
source /scenario/requests.bash

readonly PROGRAM=/usr/bin/procbroker SETTINGS=/etc/default/procbroker STATE=/var/lib/procbroker
first=$(echo /scenario/procbroker_*-1_*.deb)
second=$(echo /scenario/procbroker_*-2_*.deb)
readonly first second
daemon=

as_web() { runuser -u www-data -- "$@"; }

active() { systemctl is-active "$1" || true; }

# in_package FILE: whether the package has it. Some machines leave out manual pages when they unpack.
in_package() {
    dpkg-deb --contents "$first" | awk '{ print $6 }' | grep -qx "\.$1" || { echo "the package has no $1"; return 1; }
}

# The pids of the children that start_children has started, and of the daemon, as long as they live.
processes() {
    local name pid
    for name in one two three; do
        request get "{\"target\":\"$name\"}"
        pid=$(field child.pid)
        [ ! -e "/proc/$pid" ] || echo "$pid"
    done
    [ ! -e "/proc/$daemon" ] || echo "$daemon"
}

# Every file of that name where packages and services leave something.
traces() { find /etc /usr /var/lib /run -xdev -name '*procbroker*' | sort; }

# Whatever this machine has said about services that are started while packages are installed.
rm -f /usr/sbin/policy-rc.d
before=$(traces)
readonly before

it_is_installed_and_started() {
    local file said
    for file in /usr/share/man/man1/procbroker.1.gz /usr/share/man/man1/procbroker-create.1.gz \
        /usr/share/bash-completion/completions/procbroker /usr/share/zsh/vendor-completions/_procbroker \
        /usr/share/fish/vendor_completions.d/procbroker.fish /usr/share/doc/procbroker/copyright \
        /usr/share/doc/procbroker/changelog.gz /usr/share/doc/procbroker/changelog.Debian.gz; do
        in_package "$file"
    done
    dpkg --install "$first"
    equal "what dpkg finds wrong with it" "" "$(dpkg --audit procbroker)"
    said=$(systemd-analyze verify procbroker.socket procbroker.service 2>&1) || { echo "$said"; return 1; }
    equal "what systemd-analyze has to say" "" "$said"
    bash -n /usr/share/bash-completion/completions/procbroker
    equal "at boot" "enabled enabled" "$(systemctl is-enabled procbroker.socket procbroker.service | xargs)"
    equal "now" "active active" "$(active procbroker.socket) $(active procbroker.service)"
    equal "access to the socket" "660 root procbroker" "$(stat --format='%a %U %G' "$SOCKET")"
    equal "what is run" "$PROGRAM" "$(readlink "/proc/$(property MainPID)/exe")"
    passed "it is installed, and started now and at boot"
}

the_socket_starts_the_broker_for_a_web_user() {
    local status=0
    systemctl stop procbroker.socket procbroker.service
    systemctl start procbroker.socket
    as_web procbroker status >/run/said 2>&1 || status=$?
    equal "a user outside of the group" 6 "$status"
    equal "the service before a request" inactive "$(active procbroker.service)"
    usermod --append --groups procbroker www-data
    as_web procbroker create --name render -- sleep infinity >/run/said
    equal "the service after a request" active "$(active procbroker.service)"
    request get '{"target":"render"}'
    equal "whose child it is" www-data "$(stat --format=%U "/proc/$(field child.pid)")"
    passed "the first request of a member of the group starts the broker"
}

a_stop_leaves_no_child() {
    local child
    request get '{"target":"render"}'
    child=$(field child.pid)
    systemctl stop procbroker.service
    [ ! -e "/proc/$child" ]
    equal "the result of the service" success "$(property Result)"
    passed "a stop leaves no child"
}

# Three children of the web user, one of which has a daemon.
start_children() {
    as_web procbroker create --name one -- sleep infinity
    as_web procbroker create --name two -- sleep infinity
    mkfifo --mode 666 /run/daemon-is-there
    as_web procbroker create --name three -- \
        sh -c '(setsid sh -c "echo \$\$ >/run/daemon-is-there; exec sleep infinity" &); exec sleep infinity'
    daemon=$(hear /run/daemon-is-there)
    rm /run/daemon-is-there
}

an_upgrade_loses_no_child() {
    local pids broker instance
    start_children >/run/said
    sed -i 's/^PROCBROKER_ARGS=.*/PROCBROKER_ARGS="--allow-group procbroker --log debug"/' "$SETTINGS"
    pids=$(processes)
    broker=$(property MainPID)
    request status '{}'
    instance=$(field instance)
    equal "the children before" 4 "$(wc --words <<<"$pids")"

    dpkg --install "$second"
    equal "what dpkg finds wrong with it" "" "$(dpkg --audit procbroker)"
    equal "the version" "$(dpkg-deb --field "$second" Version)" "$(dpkg-query --show --showformat='${Version}' procbroker)"
    equal "the children after" "$pids" "$(processes)"
    equal "the broker's pid" "$broker" "$(property MainPID)"
    [ "/proc/$broker/exe" -ef "$PROGRAM" ]
    request status '{}'
    [ "$(field instance)" != "$instance" ]
    grep -q 'log debug' "$SETTINGS"
    as_web procbroker list >/run/said
    passed "an upgrade keeps every child, the broker's pid and the settings, and runs the new program"
}

an_upgrade_that_is_refused_harms_nobody() {
    local pids broker
    pids=$(processes)
    broker=$(property MainPID)
    mkdir -p /run/systemd/system/procbroker.service.d
    printf '[Service]\nExecReload=\nExecReload=/bin/false\n' >/run/systemd/system/procbroker.service.d/refuse.conf
    dpkg --install "$first" >/run/said 2>&1
    grep -q 'goes on with the old one' /run/said
    equal "what dpkg finds wrong with it" "" "$(dpkg --audit procbroker)"
    equal "the children after" "$pids" "$(processes)"
    equal "the broker's pid" "$broker" "$(property MainPID)"
    rm -r /run/systemd/system/procbroker.service.d
    systemctl daemon-reload
    systemctl reload procbroker.service
    equal "the children after all" "$pids" "$(processes)"
    [ "/proc/$broker/exe" -ef "$PROGRAM" ]
    passed "an upgrade that the broker refuses is told of, and harms nobody"
}

a_removal_stops_everything() {
    local pids broker pid
    pids=$(processes)
    broker=$(property MainPID)
    dpkg --remove procbroker
    for pid in $pids $broker; do
        [ ! -e "/proc/$pid" ]
    done
    equal "the units" "inactive inactive" "$(active procbroker.socket) $(active procbroker.service)"
    [ ! -e "$PROGRAM" ]
    [ ! -e "$SOCKET" ]
    [ ! -e "$GROUP" ]
    [ -e "$STATE/state.db" ]
    [ -e "$SETTINGS" ]
    passed "a removal stops the broker and its children, and keeps settings and state"
}

it_comes_back_as_it_was() {
    dpkg --install "$first"
    equal "now" "active active" "$(active procbroker.socket) $(active procbroker.service)"
    as_web procbroker list --all --json | grep -q '"name":"three"'
    grep -q 'log debug' "$SETTINGS"
    passed "what was removed and is installed again knows its children of before"
}

a_purge_leaves_nothing() {
    dpkg --purge procbroker
    equal "the group" "" "$(getent group procbroker || true)"
    equal "what is left" "$before" "$(traces)"
    equal "what is known of its units" "" "$(systemctl list-unit-files --no-legend 'procbroker*' || true)"
    passed "a purge leaves nothing"
}

it_is_installed_and_started
the_socket_starts_the_broker_for_a_web_user
a_stop_leaves_no_child
an_upgrade_loses_no_child
an_upgrade_that_is_refused_harms_nobody
a_removal_stops_everything
it_comes_back_as_it_was
a_purge_leaves_nothing
