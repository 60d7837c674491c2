//! What stands below the flags in help and manual pages: examples, exit statuses, environment.

/// Below the help of the program.
pub(super) fn root() -> &'static str {
    "\
Output:
  On a terminal, tables for people. Elsewhere a line for each child, without
  a header, its fields between tabs, `-` for one that is absent:
    ID NAME STATE PID STARTED_AT RESTARTS EXIT COMMAND
  EXIT is an exit code, the name of a signal, or `unknown`. `create` prints
  the id alone, `get` and `status` lines of KEY, tab, VALUE. Control
  characters of a child's texts are escaped. With --json, the wire objects.

Exit status:
  0  done
  1  failed
  2  usage: the command line, or parameters that the broker refuses
  3  not found
  4  name taken, or limit exceeded
  5  no broker there
  6  permission denied
  7  timeout

Environment:
  PROCBROKER_SOCKET  the broker's socket, where --socket is not given
  NO_COLOR           no colours, even on a terminal

Examples:
  procbroker serve
  procbroker create --name render-42 --if-exists reuse -- python3 render.py 42
  procbroker list
  procbroker destroy render-42"
}

/// Below the help of `serve`.
pub(super) fn serve() -> &'static str {
    "\
Examples:
  Everything at its default, in the foreground:
    procbroker serve
  A web application's workers, which run as www-data, may use root's broker:
    procbroker serve --allow-user www-data --socket-group www-data \\
        --socket-mode 660
  Bounds for a small machine:
    procbroker serve --max-children 100 --shutdown-timeout 10s

Signals:
  SIGTERM, SIGINT and SIGHUP stop every child, then the broker. A second
  SIGTERM or SIGINT kills at once."
}

/// Below the help of `run`.
pub(super) fn run() -> &'static str {
    "\
Examples:
  Apache in a container, with a graceful stop and its failsafe:
    procbroker run --main-stop SIGWINCH:20s,SIGTERM:5s -- \\
        apachectl -D FOREGROUND
  gunicorn, whose workers run as another user:
    procbroker run --allow-user www-data --socket-group www-data \\
        --socket-mode 660 -- gunicorn --user www-data app:app

Docker and Kubernetes kill what does not stop in time: give them more than
--shutdown-timeout (docker run --stop-timeout, terminationGracePeriodSeconds)."
}

/// Below the help of `create`.
pub(super) fn create() -> &'static str {
    "\
Examples:
  One child of a name, however many workers ask for it at the same time:
    procbroker create --name render-42 --if-exists reuse -- \\
        python3 render.py 42
  A graceful stop first, then a firm one:
    procbroker create --stop SIGHUP:10s,SIGTERM:5s -- ./server
  Keep the id in a script, and clean up after it however it ends:
    id=$(procbroker create --cleanup rm --cleanup -rf --cleanup \"$dir\" \\
        -- ./job \"$dir\")
  At most four at a time:
    procbroker create --limit render=4 --label pool=render -- ./render
  With a shell, where one is wanted:
    procbroker create -- sh -c 'exec ./job >>job.log 2>&1'"
}

/// Below the help of `destroy`.
pub(super) fn destroy() -> &'static str {
    "\
Examples:
  procbroker destroy render-42
  procbroker destroy --label pool=render --stop SIGINT:2s
  procbroker destroy --all --no-wait"
}

/// Below the help of `logs`.
pub(super) fn logs() -> &'static str {
    "\
Examples:
  procbroker logs render-42
  procbroker logs --tail 20 --follow render-42
  procbroker logs --follow --json render-42 | jq -r .text

With --json and --follow, one object a line: the answer, then the
notifications, the last of them with `ended`."
}

/// Below the help of `events`.
pub(super) fn events() -> &'static str {
    "\
Output:
  On a terminal, lines for people. Elsewhere fields between tabs, `-` for one
  that is absent:
    SEQ AT KIND ID NAME PID EXIT
  SEQ is the number of the event, for --since; a restarted broker counts anew.
  With --json the notifications as they are on the wire, one a line.

Examples:
  procbroker events --label pool=render
  procbroker events --since 0 --json | jq -r 'select(.kind == \"exited\")'"
}

/// Below the help of `upgrade`.
pub(super) fn upgrade() -> &'static str {
    "\
Output:
  The version before and the one after it. With --json, the `status` of the
  broker that has taken over.

Examples:
  install -m 755 procbroker /usr/local/bin/procbroker && procbroker upgrade"
}

/// Below the help of `completions`.
pub(super) fn completions() -> &'static str {
    "\
Examples:
  procbroker completions bash >/etc/bash_completion.d/procbroker
  procbroker completions zsh >\"${fpath[1]}/_procbroker\"
  procbroker completions fish >~/.config/fish/completions/procbroker.fish"
}

/// Below the help of `man`.
pub(super) fn man() -> &'static str {
    "\
Examples:
  procbroker man | man -l -
  procbroker man create >/usr/local/share/man/man1/procbroker-create.1"
}
