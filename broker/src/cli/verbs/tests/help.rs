//! What the help says of verbs and flags.

use clap::CommandFactory;
use procbroker_core::Bounds;

use crate::cli::verbs::CommandLine;

#[test]
fn every_flag_has_one_clear_line_of_help() {
    let mut program = CommandLine::command();
    program.build();
    for verb in program.get_subcommands() {
        assert!(verb.get_about().is_some(), "{verb}");
        for argument in verb.get_arguments() {
            let help = argument.get_help().unwrap_or_else(|| panic!("{verb} {argument}")).to_string();
            assert!(
                !help.is_empty() && !help.contains('\n') && !help.ends_with('.'),
                "{verb} {argument}: {help}"
            );
        }
    }
}

#[test]
fn the_help_of_json_says_of_each_verb_what_it_prints() {
    let mut program = CommandLine::command();
    program.build();
    let help = |verb: &str| {
        let verb = program.find_subcommand(verb).unwrap();
        let flag = verb.get_arguments().find(|flag| flag.get_long() == Some("json")).unwrap();
        (flag.get_help().unwrap().to_string(), flag.get_long_help().unwrap().to_string())
    };
    let (short, long) = help("events");
    assert_eq!(short, "Print each event as it is on the wire, a line of JSON for each");
    assert!(long.starts_with(&short) && long.contains("`seq`, `at`, `kind`"), "{long}");
    assert!(!long.contains("result"), "{long}");
    assert!(help("list").1.contains("the JSON-RPC result"));
}

#[test]
fn help_names_the_defaults_and_the_warning_for_brokers_of_others() {
    let mut program = CommandLine::command();
    let help = program.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        &format!("[default: {}]", Bounds::default().max_children),
        &format!("[default: {}]", Bounds::default().max_connections),
        "half of all unless set",
        "a quarter of all unless set",
        "[default: 30s]",
        "[default: 1h]",
        "[default: 16MiB]",
        "A broker that does not run as root starts them as its own user",
        "Examples:",
    ] {
        assert!(words.contains(text), "{text} is not in {help}");
    }
}

#[test]
fn no_line_of_the_help_is_wider_than_80_columns_in_a_pipe() {
    let mut program = CommandLine::command();
    program.build();
    let mut verbs: Vec<clap::Command> =
        program.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    verbs.push(program);
    for mut verb in verbs {
        for help in [verb.render_help().to_string(), verb.render_long_help().to_string()] {
            let wide = help.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{}", verb.get_name());
        }
    }
}

#[test]
fn a_help_in_which_durations_occur_says_once_what_one_is() {
    let mut program = CommandLine::command();
    program.build();
    for verb in program.get_subcommands_mut().filter(|verb| !verb.is_hide_set()) {
        let takes_durations = verb.get_arguments().any(|argument| {
            let names = argument.get_value_names().unwrap_or_default();
            names.iter().any(|name| name.contains("DURATION") || name.contains("GRACE"))
        });
        let help = verb.render_long_help().to_string();
        let said =
            help.matches("Durations:\n  250ms, 10s, 5m, 1h30m, 2d; a number without a unit is seconds.");
        let is_said = takes_durations || verb.get_name() == "logs";
        assert_eq!(said.count(), usize::from(is_said), "{}: {help}", verb.get_name());
    }
}

#[test]
fn the_help_of_create_says_where_standard_input_is_from_and_how_to_learn_whether_the_child_is_new() {
    let mut program = CommandLine::command();
    let help = program.find_subcommand_mut("create").unwrap().render_long_help().to_string();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("The child's standard input is `/dev/null`"), "{help}");
    for text in [help, program.render_long_help().to_string()] {
        assert!(text.contains("--json") && text.contains("jq -r .outcome"), "{text}");
    }
}
