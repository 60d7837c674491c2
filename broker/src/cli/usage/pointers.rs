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

/// What to give in the place of a word that a flag does not take.
pub(super) fn of_word(flag: &str, given: &str) -> Option<&'static str> {
    let is_same = |word: &str| match word.strip_suffix(':') {
        Some(_) => given.starts_with(word),
        None => given == word,
    };
    WORDS.iter().find(|(of, word, _)| *of == flag && is_same(word)).map(|(.., pointer)| *pointer)
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    let verbs = VERBS.iter().map(|(_, pointer)| *pointer);
    let flags = FLAGS.iter().map(|(.., pointer)| *pointer);
    let words = WORDS.iter().map(|(.., pointer)| *pointer);
    verbs.chain(flags).chain(VALUES.iter().map(|(_, pointer)| *pointer)).chain(words)
}

/// Verbs of other tools that mean something else here, more than one thing, or what another word says here.
const VERBS: [(&[&str], &str); 22] = [
    (
        &["kill"],
        "'procbroker destroy TARGET' stops a child, 'procbroker signal TARGET SIGNAL' sends it a signal",
    ),
    (
        &["remove", "delete", "del", "terminate"],
        "'procbroker destroy TARGET' stops a child and cleans up after it",
    ),
    (
        &["start"],
        "'procbroker create -- COMMAND' starts a child, 'procbroker serve' the broker; a child that has ended or was stopped \
         is not started again, it is created anew: 'procbroker restart TARGET' is for those that live",
    ),
    (&["spawn"], "'procbroker create -- COMMAND' starts a child, 'procbroker serve' the broker"),
    (&["add", "new", "launch", "submit"], "'procbroker create -- COMMAND' starts a child"),
    (&["daemon", "daemonize", "server", "broker"], "'procbroker serve' runs the broker, in the foreground"),
    (&["up"], "'procbroker serve' runs the broker, 'procbroker create -- COMMAND' starts a child"),
    (
        &["down"],
        "'procbroker shutdown' stops every child and the broker, 'procbroker destroy TARGET' one child",
    ),
    (&["info"], "'procbroker status' shows the broker, 'procbroker get TARGET' a child"),
    (&["exec"], "'procbroker create -- COMMAND' starts one more child; nothing can be run inside another"),
    (&["attach"], "'procbroker logs --follow TARGET' shows what a child writes; none of them has a terminal"),
    (&["show"], "'procbroker get TARGET' shows one child, 'procbroker list' all of them"),
    (
        &["stats"],
        "'procbroker top' shows what children use, 'procbroker list --usage' the same once, 'procbroker metrics' what the \
         broker has counted",
    ),
    (
        &["reload"],
        "'procbroker signal TARGET HUP' has a child do so, 'procbroker upgrade' takes up a new version of the broker",
    ),
    (
        &["enable", "disable"],
        "nothing of a child is kept beyond its end: 'procbroker create --restart always -- COMMAND' starts it again",
    ),
    (
        &["is-active"],
        "'procbroker get TARGET' shows the state of a child, and has exit status 3 where there is none",
    ),
    (
        &["pause", "unpause", "resume", "suspend"],
        "'procbroker signal TARGET STOP --scope group' halts a child, and CONT in the place of STOP has it go on",
    ),
    (&["quit", "exit", "halt"], "'procbroker shutdown' stops every child and the broker"),
    (
        &["update"],
        "'procbroker create --if-exists replace' puts another child in the place of one, 'procbroker upgrade' a new version \
         in that of the broker",
    ),
    (
        &["journal"],
        "'procbroker logs TARGET' shows what a child has written, 'procbroker events' what happens to children",
    ),
    (&["log", "tail"], "'procbroker logs TARGET' shows what a child has written"),
    (&["version"], "'procbroker --version' shows this program's, 'procbroker status' the broker's"),
];

/// Flags of other tools, of which verb they would be, and what to use.
const FLAGS: [(&str, &[&str], &str); 32] = [
    (
        "create",
        &["--ttl"],
        "'--lifetime ttl:10m' ends it after so long, unless 'procbroker renew' comes before",
    ),
    (
        "run",
        &["-d", "--detach", "--daemon", "--background"],
        "it stays in the foreground, for a container to start; 'procbroker create -- COMMAND' starts a child that goes on by \
         itself",
    ),
    (
        "run",
        &[
            "--name",
            "-n",
            "--if-exists",
            "--label",
            "-l",
            "--restart",
            "--ready",
            "--cleanup",
            "--lifetime",
            "--cwd",
            "-w",
            "--env",
            "-e",
            "--user",
            "-u",
        ],
        "it starts a broker and the server beside it: 'procbroker create' starts a child, with such flags, in a broker that \
         runs",
    ),
    ("logs", &["--stderr", "-e"], "'--stream stderr' shows its standard error"),
    ("logs", &["--stdout", "-o"], "it is shown unless '--stream stderr' says otherwise"),
    (
        "serve",
        &["--port", "-p", "--host", "--bind", "-b", "--listen", "-l", "--address"],
        "it listens at a Unix socket, which '--socket PATH' names; '--metrics 9464' serves metrics at a port",
    ),
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
    (
        "create",
        &["--stop-signal", "--kill-signal"],
        "'--stop SIGINT:10s' is the signal that asks it to end, and how long it has",
    ),
    (
        "create",
        &["--timeout"],
        "'--ready-timeout' bounds how long it takes to be ready, '--lifetime ttl:5m' how long it lives",
    ),
    (
        "create",
        &["--env-file"],
        "'--inherit-env' gives it the environment of this command, 'env $(cat FILE) procbroker create --inherit-env -- COMMAND' \
         what a file has on top",
    ),
    ("run", &["--rm"], "nothing is to be removed: it ends with the main command, and all children with it"),
    (
        "signal",
        &["-s", "--signal", "-n"],
        "the signal comes after the children: 'procbroker signal TARGET HUP'",
    ),
    ("events", &["-f", "--follow"], "it goes on until Ctrl-C anyway"),
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
    (
        "list",
        &["--format", "-o", "--output"],
        "'--json' tells all of each child, for jq(1), and with '--usage' what it uses",
    ),
    (
        "serve",
        &["-d", "--detach", "--daemon", "--daemonize", "-D", "--background"],
        "it stays in the foreground, for systemd or another supervisor to start",
    ),
    ("serve", &["-f", "--foreground", "--no-daemon", "--nodaemon"], "it stays in the foreground anyway"),
    (
        "serve",
        &["-v", "--verbose", "--debug", "-q", "--quiet", "--log-level", "--loglevel"],
        "'--log warn' tells less and '--log debug' more",
    ),
    (
        "serve",
        &["--config", "-c", "--conf"],
        "there is no such file: all is said by flags, under systemd by PROCBROKER_ARGS in /etc/default/procbroker",
    ),
];

/// Words that other tools take for a flag of the same name, or how they begin where a colon is at the end.
const WORDS: [(&str, &str, &str); 3] = [
    ("--restart", "no", "it is 'never' here, and need not be said"),
    ("--restart", "unless-stopped", "it is 'always' here: what was destroyed is not started again"),
    (
        "--restart",
        "on-failure:",
        "the number is given apart: '--restart on-failure --restart-max 3', within '--restart-window 1m'",
    ),
];

/// Verbs that take no name, or one only, and what to do with what they were given.
const VALUES: [(&str, &str); 7] = [
    ("status", "it shows the broker itself: 'procbroker get TARGET' shows a child"),
    ("list", "'--name PATTERN' shows those of such a name, 'procbroker get TARGET' one child"),
    ("get", "it takes one child: 'procbroker list --json' tells of all"),
    ("logs", "it takes one child: run it for each"),
    ("events", "'--label KEY=VALUE' chooses children; 'procbroker wait TARGET' waits for one"),
    ("top", "'/' chooses what it shows, while it is open"),
    ("shutdown", "it stops every child and the broker: 'procbroker destroy TARGET' stops one child"),
];
