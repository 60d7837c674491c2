//! The broker's messages in the words of the command line: they name parameters as they are on the wire, and whoever
//! types flags is told of flags.

use std::borrow::Cow;

use procbroker_protocol::ErrorKind;

/// Parameters whose flag has another name.
const FLAGS: [(&str, &str); 17] = [
    ("command", "the command"),
    ("target", "the target"),
    ("signal", "the signal"),
    ("labels", "--label"),
    ("groups", "--group"),
    ("rlimits", "--rlimit"),
    ("cleanup.command", "--cleanup"),
    ("ready.interval", "--ready-interval"),
    ("ready.command", "--ready-command"),
    ("ready.unix", "--ready"),
    ("ready.log", "--ready"),
    ("limit.key", "--limit"),
    ("limit.wait", "--limit-wait"),
    ("restart.max", "--restart-max"),
    ("restart.window", "--restart-window"),
    ("restart.backoff", "--restart-backoff"),
    ("restart.backoff_max", "--restart-backoff-max"),
];

/// What is given with one flag, and on the wire as members of one object.
const RESOURCES: &str = "resources.";

/// What messages say of parameters beside their names, and the same of flags.
const PHRASES: [(&str, &str); 22] = [
    ("use if_exists reuse or replace, or another name", "use --if-exists reuse or replace, or another name"),
    ("need a name to look for; give one", "need a name to look for; give one with --name"),
    ("give ready: notify with it", "give --ready notify with it"),
    ("it needs the lifetime connection", "it needs --lifetime connection"),
    ("use the lifetime connection or ttl", "use --lifetime connection or --lifetime ttl:DURATION"),
    ("it has no time to live (lifetime ttl)", "it has no time to live (--lifetime ttl:DURATION)"),
    (", which cwd sets", ", which --cwd sets"),
    ("(ready_timeout)", "(--ready-timeout)"),
    ("(limit.wait)", "(--limit-wait)"),
    ("(restart.policy)", "(--restart)"),
    ("(restart.backoff_max)", "(--restart-backoff-max)"),
    ("the commands and env have", "the commands and --env have"),
    ("cannot create a child: the groups ", "cannot create a child: the group (--group) "),
    ("cannot create a child: the user ", "cannot create a child: the user (--user) "),
    ("without `groups` a child has", "without --group a child has"),
    ("stdout and stderr `inherit` are", "--stdout inherit and --stderr inherit are"),
    ("is neither: use `log`", "is neither: use log"),
    ("rlimits failed with", "setting the limits (--rlimit) failed with"),
    ("groups failed with", "setting the groups (--group) failed with"),
    ("resources failed with", "setting the bounds (--resource) failed with"),
    ("see the facilities in status", "see the facilities in 'procbroker status'"),
    (
        "among those that you may see; list shows them",
        "among those that you may see; 'procbroker list' shows them",
    ),
];

/// What the broker has said, with the names of flags instead of those of the wire's parameters.
pub(super) fn in_words_of_flags(kind: &ErrorKind, message: &str) -> String {
    if let (ErrorKind::InvalidParams, Some((parameter, reason))) =
        (kind, message.strip_prefix("invalid parameter ").and_then(|rest| rest.split_once(": ")))
    {
        return format!("invalid value for {}: {}", flag(parameter), phrased(reason));
    }
    if *kind == ErrorKind::NotFound && is_the_beginning_of_an_id(message) {
        return phrased(message) + ", and an id is given whole";
    }
    phrased(message)
}

/// Whether the child that is not there was named by what stands at the beginning of ids, which no verb takes for one.
fn is_the_beginning_of_an_id(message: &str) -> bool {
    let named = message.strip_prefix("there is no child ").and_then(|rest| rest.split_once(' '));
    named.is_some_and(|(name, _)| {
        let of_an_id = |(place, byte): (usize, u8)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        };
        (ID_BEGINNING_MIN..36).contains(&name.len()) && name.bytes().enumerate().all(of_an_id)
    })
}

/// A beginning of an id has the whole first part of it, which is what people copy; less could be anything.
const ID_BEGINNING_MIN: usize = 8;

/// The flag that gives a parameter.
fn flag(parameter: &str) -> Cow<'static, str> {
    if let Some((_, flag)) = FLAGS.iter().find(|(other, _)| *other == parameter) {
        return (*flag).into();
    }
    if let Some(resource) = parameter.strip_prefix(RESOURCES) {
        return format!("--resource {resource}").into();
    }
    format!("--{}", parameter.replace('_', "-")).into()
}

fn phrased(message: &str) -> String {
    let message = match message.strip_prefix(RESOURCES) {
        Some(rest) => format!("--resource {rest}"),
        None => message.to_owned(),
    };
    PHRASES.iter().fold(message, |message, (wire, said)| message.replace(wire, said))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::verbs::CommandLine;

    /// The sources of the core, less their tests, with strings of several lines on one.
    fn sources() -> String {
        fn read(folder: &Path, all: &mut String) {
            let mut entries: Vec<_> =
                std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                if path.is_dir() {
                    read(&path, all);
                } else {
                    let text = std::fs::read_to_string(&path).unwrap();
                    all.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
                }
            }
        }
        let mut all = String::new();
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("core/src"), &mut all);
        let mut lines = all.split("\\\n");
        let first = lines.next().unwrap().to_owned();
        first + &lines.map(str::trim_start).collect::<String>()
    }

    /// Every text between quotes.
    fn literals(sources: &str) -> Vec<&str> {
        let code = sources.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.flat_map(|line| line.split('"').skip(1).step_by(2)).collect()
    }

    #[test]
    fn who_gives_the_beginning_of_an_id_is_told_that_it_is_given_whole() {
        let said = |name: &str| {
            let message = format!("there is no child {name} among those that you may see; list shows them");
            in_words_of_flags(&ErrorKind::NotFound, &message)
        };
        for beginning in ["01a22cf5-c997", "01a22cf5", "01a22cf5-", "01A22CF5-c997-7000-8000-00000000000"] {
            assert!(said(beginning).ends_with("'procbroker list' shows them, and an id is given whole"));
        }
        for other in ["render-42", "01a22cf", "01a22cf5c997", "01a22cf5-c997-7000-8000-000000000001"] {
            assert!(said(other).ends_with("'procbroker list' shows them"), "{other}");
        }
    }

    #[test]
    fn every_parameter_that_the_broker_refuses_is_named_by_its_flag() {
        let sources = sources();
        let mut line = CommandLine::command();
        line.build();
        let flags: Vec<String> = line
            .get_subcommands()
            .flat_map(|verb| verb.get_arguments().filter_map(|argument| argument.get_long()))
            .map(|flag| format!("--{flag}"))
            .collect();
        let calls = ["invalid(\"", "invalid(\n", "text(\"", "command(\""];
        let named = calls.iter().flat_map(|call| sources.split(call).skip(1));
        let fields: Vec<&str> = named
            .filter_map(|rest| rest.trim_start().trim_start_matches('"').split('"').next())
            .filter(|field| !field.contains(|c: char| !c.is_ascii_lowercase() && c != '_' && c != '.'))
            .collect();
        assert!(fields.contains(&"if_exists") && fields.contains(&"resources.cpu_max"), "{fields:?}");
        for field in fields {
            // The command line gives no position: its own client does, where it goes on.
            if field == "position" {
                continue;
            }
            let flag = flag(field);
            let known = flag.split(' ').next().unwrap();
            assert!(flags.iter().any(|flag| flag == known) || flag.starts_with("the "), "{field}: {flag}");
        }
    }

    #[test]
    fn what_is_translated_is_said_and_nothing_else_names_a_parameter() {
        let sources = sources();
        for (wire, _) in PHRASES {
            // What a step is called is put in.
            let literal = wire.replace("rlimits ", "{step} ").replace("resources ", "{step} ");
            let literal = literal.replace("groups failed", "{step} failed");
            let literal = literal.replace("the groups ", "the {} ").replace("the user ", "the {} ");
            assert!(sources.contains(&literal), "the broker does not say {literal:?} any more");
        }
        let parameters = [
            "if_exists",
            "request_id",
            "env_clear",
            "stop_order",
            "ready_timeout",
            "no_wait",
            "backoff_max",
            "limit.wait",
            "limit.key",
            "cleanup.command",
            "resources.",
            "ready: ",
            "(lifetime ttl",
            "the lifetime connection",
            "`",
        ];
        for literal in literals(&sources).into_iter().filter(|literal| literal.contains(' ')) {
            let said = phrased(literal);
            let left = parameters.iter().find(|parameter| said.contains(**parameter));
            assert_eq!(left, None, "{said}");
        }
    }
}
