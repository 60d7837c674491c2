//! What people type who know other tools, and what does the same here.

/// What to use in the place of a verb that is none here.
pub(super) fn of_verb(given: &str) -> Option<&'static str> {
    VERBS.iter().find(|(verbs, _)| verbs.contains(&given)).map(|(_, pointer)| *pointer)
}

/// What to use in the place of a flag that a verb does not have.
pub(super) fn of_flag(verb: &str, given: &str) -> Option<&'static str> {
    let found = FLAGS.iter().find(|(of, flags, _)| *of == verb && flags.contains(&given));
    found.map(|(.., pointer)| *pointer)
}

/// What to use where a verb was given something that is no flag, and takes no such thing.
pub(super) fn of_value(verb: &str) -> Option<&'static str> {
    VALUES.iter().find(|(of, _)| *of == verb).map(|(_, pointer)| *pointer)
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    let verbs = VERBS.iter().map(|(_, pointer)| *pointer);
    verbs.chain(FLAGS.iter().map(|(.., pointer)| *pointer)).chain(VALUES.iter().map(|(_, pointer)| *pointer))
}

/// Verbs of other tools that mean something else here, more than one thing, or what another word says here.
const VERBS: [(&[&str], &str); 8] = [
    (
        &["kill"],
        "'procbroker destroy TARGET' stops a child, 'procbroker signal TARGET SIGNAL' sends it a signal",
    ),
    (
        &["remove", "delete", "del", "terminate"],
        "'procbroker destroy TARGET' stops a child and cleans up after it",
    ),
    (&["start", "spawn"], "'procbroker create -- COMMAND' starts a child, 'procbroker serve' the broker"),
    (&["exec"], "'procbroker create -- COMMAND' starts one more child; nothing can be run inside another"),
    (&["attach"], "'procbroker logs --follow TARGET' shows what a child writes; none of them has a terminal"),
    (&["show"], "'procbroker get TARGET' shows one child, 'procbroker list' all of them"),
    (&["log", "tail"], "'procbroker logs TARGET' shows what a child has written"),
    (&["version"], "'procbroker --version' shows this program's, 'procbroker status' the broker's"),
];

/// Flags of other tools, of which verb they would be, and what to use.
const FLAGS: [(&str, &[&str], &str); 17] = [
    (
        "create",
        &["--detach", "-d"],
        "a child goes on by itself, and '--no-wait' does not even wait until it is ready",
    ),
    ("create", &["-n"], "'--name NAME' names the child"),
    ("create", &["-e", "-E"], "'--env KEY=VALUE' sets a variable of the child"),
    ("create", &["-l"], "'--label KEY=VALUE' gives the child a label"),
    ("create", &["-u"], "'--user USER' names the user that the child runs as"),
    ("create", &["-w", "--workdir", "--chdir", "-C"], "'--cwd FOLDER' is where the child starts"),
    (
        "create",
        &["--rm"],
        "nothing is to be removed: a child that has ended is shown for a while, and forgotten",
    ),
    (
        "create",
        &[
            "--cpu-max",
            "--cpus",
            "--cpu-weight",
            "--cpu-shares",
            "--memory",
            "-m",
            "--memory-max",
            "--memory-high",
            "--pids-max",
            "--pids-limit",
            "--io-weight",
        ],
        "bounds are given with --resource, such as '--resource cpu_max=1.5' or '--resource memory_max=512M'",
    ),
    ("create", &["--ulimit"], "'--rlimit nofile=1024' bounds what one process may have"),
    (
        "create",
        &["-i", "-t", "-it", "--interactive", "--tty"],
        "children have no terminal; 'procbroker run --interactive' gives one to the main command",
    ),
    (
        "destroy",
        &["--force", "-f", "--timeout", "-t", "--time", "--signal", "-s", "-9"],
        "'--stop KILL' ends it at once, '--stop SIGTERM:5s' by force after five seconds",
    ),
    ("run", &["--inherit-env"], "the main command has the environment of this program anyway"),
    ("logs", &["--lines", "-l"], "'--tail N' (-n) shows the last lines"),
    (
        "list",
        &["--sort", "-s", "--sort-by"],
        "children are shown by age, the oldest first; 'procbroker top' orders them by what they use",
    ),
    (
        "list",
        &["--filter", "-f"],
        "--label, --name and --state choose children; '--json' tells all of each, for jq(1)",
    ),
    ("list", &["--format", "-o", "--output"], "'--json' tells all of each child, for jq(1)"),
    (
        "serve",
        &["-d", "--detach", "--daemon", "--daemonize", "-D", "--background"],
        "it stays in the foreground, for systemd or another supervisor to start",
    ),
];

/// Verbs that take no name, or one only, and what to do with what they were given.
const VALUES: [(&str, &str); 9] = [
    ("status", "it shows the broker itself: 'procbroker get TARGET' shows a child"),
    ("list", "'--name PATTERN' shows those of such a name, 'procbroker get TARGET' one child"),
    ("signal", "it takes one child and one signal: run it for each"),
    ("get", "it takes one child: 'procbroker list --json' tells of all"),
    ("wait", "it takes one child: run it for each"),
    ("logs", "it takes one child: run it for each"),
    ("events", "'--label KEY=VALUE' chooses children; 'procbroker wait TARGET' waits for one"),
    ("top", "'/' chooses what it shows, while it is open"),
    ("shutdown", "it stops every child and the broker: 'procbroker destroy TARGET' stops one child"),
];
