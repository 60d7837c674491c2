//! `completions`: the script that completes verbs, flags, children and signals in a shell.
//!
//! Verbs and flags come from the definition of the command line. What a broker knows is asked of it while somebody
//! types, by the hidden verb `complete`: in bash, zsh and fish.

use std::fmt::Write as _;

use clap::{Arg, Args, Command, ValueHint};
use clap_complete::Shell;

use crate::cli::program::PROGRAM;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker completions bash >/etc/bash_completion.d/procbroker
  procbroker completions zsh >\"${fpath[1]}/_procbroker\"
  procbroker completions fish >~/.config/fish/completions/procbroker.fish";

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CompletionsArguments {
    /// The shell to print them for
    #[arg(value_enum)]
    pub(in crate::cli) shell: Shell,
}

/// The script that completes in a shell.
pub(in crate::cli) fn completions(shell: Shell, whole: &Command) -> String {
    let mut program = without_hidden_verbs(whole);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, PROGRAM, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + &bash(&program),
        Shell::Zsh => zsh(&script),
        Shell::Fish => script + &fish(&program),
        // Elvish and PowerShell, and what the library may learn later, complete verbs and flags alone.
        _ => script,
    }
}

/// The definition of the command line, less the verbs that nobody is to type.
fn without_hidden_verbs(whole: &Command) -> Command {
    let shown = whole.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().map(with_hints);
    let program = Command::new(PROGRAM).version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    program.args(whole.get_arguments().cloned()).subcommands(shown)
}

/// Tells the shells what the values of a verb's arguments are, so that files are offered for files alone.
fn with_hints(verb: Command) -> Command {
    let asks = verb.clone();
    verb.mut_args(|place| match hint(&place) {
        Some(hint) if asked_for(&asks, &place).is_none() => place.value_hint(hint),
        Some(_) | None => place,
    })
}

/// What a shell offers for a value, where the type of the value does not tell.
fn hint(place: &Arg) -> Option<ValueHint> {
    if !place.get_action().takes_values() || place.get_value_hint() != ValueHint::Unknown {
        return None;
    }
    Some(match place.get_id().as_str() {
        "command" => ValueHint::CommandWithArguments,
        "cleanup" | "ready_command" => ValueHint::AnyPath,
        "user" | "allow_user" => ValueHint::Username,
        _ => ValueHint::Other,
    })
}

/// What `complete` is asked for at a place of a verb.
fn asked_for(verb: &Command, place: &Arg) -> Option<&'static str> {
    match (place.get_id().as_str(), verb.get_name()) {
        ("target", "get" | "wait" | "logs") => Some("all-children"),
        ("target", _) => Some("children"),
        ("words", "signal") => Some("children-and-signals"),
        _ => None,
    }
}

/// The names of a verb.
fn names(verb: &Command) -> Vec<&str> {
    std::iter::once(verb.get_name()).chain(verb.get_visible_aliases()).collect()
}

/// The flags after which a value comes, of all verbs.
fn flags_with_a_value(program: &Command) -> Vec<String> {
    let all = std::iter::once(program).chain(program.get_subcommands());
    let with_value = all
        .flat_map(Command::get_arguments)
        .filter(|flag| !flag.is_positional() && flag.get_action().takes_values());
    let mut names: Vec<String> = with_value
        .flat_map(|flag| {
            let long = flag.get_long().map(|long| format!("--{long}"));
            let short = flag.get_short().map(|short| format!("-{short}"));
            [long, short]
        })
        .flatten()
        .collect();
    names.sort();
    names.dedup();
    names
}

/// For bash: a function around the generated one, which knows the places.
fn bash(program: &Command) -> String {
    let mut places = String::new();
    for verb in program.get_subcommands() {
        let names = names(verb).join("|");
        for (index, place) in verb.get_positionals().enumerate() {
            let Some(what) = asked_for(verb, place) else { continue };
            let many = place.get_num_args().is_some_and(|count| count.max_values() > 1);
            let count = if many { "*".to_owned() } else { index.to_string() };
            for name in names.split('|') {
                let _ = writeln!(places, "        {name}:{count}) what={what} ;;");
            }
        }
    }
    let flags = flags_with_a_value(program).join("|");
    let starters = verbs_with_a_command(program).join("|");
    format!(
        r#"
_procbroker_or_ask() {{
    # To the shell each = and : is a word of its own (COMP_WORDBREAKS). What stands together is one here.
    local line=${{COMP_LINE:0:COMP_POINT}} part words=()
    for part in "${{COMP_WORDS[@]:0:COMP_CWORD+1}}"; do
        [[ ${{#words[@]}} -gt 0 && $line != [[:blank:]]* ]] || words+=("")
        line=${{line#"${{line%%[![:blank:]]*}}"}}
        [[ $line == "$part"* ]] || part=$line
        words[${{#words[@]}}-1]+=$part
        line=${{line#"$part"}}
    done
    local COMP_WORDS=("${{words[@]}}") COMP_CWORD=$((${{#words[@]}} - 1))
    local cur=${{words[COMP_CWORD]}} kept=""
    if [[ $cur == [\"\']* ]]; then cur=$2; else kept=${{cur%"$2"}}; fi

    local word verb="" count=0 flag="" what="" command="" socket=()
    for word in "${{words[@]:1:COMP_CWORD-1}}"; do
        if [[ -n $command ]]; then
            # Arguments of the command are its own, and mostly files.
            COMPREPLY=()
            return
        elif [[ -n $flag ]]; then
            [[ $flag == --socket ]] && socket=(--socket "$word")
            flag=""
            continue
        fi
        case "$word" in
            {flags}) flag=$word ;;
            --socket=*) socket=("$word") ;;
            --) case "$verb" in {starters}) command=1 ;; esac ;;
            -*) ;;
            *) if [[ -z $verb ]]; then verb=$word; else count=$((count + 1)); fi ;;
        esac
    done
    if [[ -n $command ]]; then
        COMPREPLY=($(compgen -c -- "$cur"))
        return
    fi
    case "$verb:$count" in
{places}    esac
    if [[ -n $what && -z $flag && $cur != -* ]]; then
        COMPREPLY=($(compgen -W "$("$1" "${{socket[@]}}" complete "$what" 2>/dev/null)" -- "$cur"))
    else
        _procbroker "$1" "$cur" "${{words[COMP_CWORD-1]}}"
    fi
    # The shell puts them in the place of the part behind the last = or : alone.
    COMPREPLY=("${{COMPREPLY[@]#"$kept"}}")
}}
complete -F _procbroker_or_ask -o bashdefault -o default procbroker
"#
    )
}

/// The names of the verbs that take a command after `--`.
fn verbs_with_a_command(program: &Command) -> Vec<&str> {
    let takes_command = |verb: &&Command| verb.get_positionals().any(|place| place.get_id() == "command");
    program.get_subcommands().filter(takes_command).flat_map(names).collect()
}

/// For zsh: functions that the generated specifications of the places call.
fn zsh(script: &str) -> String {
    let functions = r#"_procbroker_ask() {
    local -a words_there
    words_there=(${(f)"$(_call_program words procbroker complete $1 2>/dev/null)"})
    # What is behind a colon would be taken for a description.
    words_there=("${words_there[@]//:/\\:}")
    _describe -t words "$2" words_there
}
(( $+functions[_procbroker_children] )) || _procbroker_children() { _procbroker_ask children child }
(( $+functions[_procbroker_all_children] )) || _procbroker_all_children() { _procbroker_ask all-children child }
(( $+functions[_procbroker_children_and_signals] )) || _procbroker_children_and_signals() {
    _procbroker_ask children-and-signals "child or signal"
}

"#;
    let mut out = String::new();
    let mut verb = "";
    for line in script.lines() {
        if line.starts_with("if [ \"$funcstack[1]\"") {
            out.push_str(functions);
        }
        if let Some(name) = line.strip_prefix('(').and_then(|line| line.strip_suffix(')')) {
            verb = name;
        }
        let function = match verb {
            "signal" => "_procbroker_children_and_signals",
            "get" | "inspect" | "wait" | "logs" => "_procbroker_all_children",
            _ => "_procbroker_children",
        };
        if line.contains("target -- ") || line.contains(":words -- ") {
            out.push_str(&line.replace(":_default'", &format!(":{function}'")));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// For fish: one more rule for each place. It does not count them.
fn fish(program: &Command) -> String {
    let mut rules = String::new();
    for verb in program.get_subcommands() {
        for place in verb.get_positionals() {
            let Some(what) = asked_for(verb, place) else { continue };
            let _ = writeln!(
                rules,
                "complete -c procbroker -n \"__fish_procbroker_using_subcommand {}\" -f -a \"(procbroker complete {what} 2>/dev/null)\"",
                names(verb).join(" ")
            );
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use clap::CommandFactory;

    use super::super::CommandLine;
    use super::*;

    fn completions(shell: Shell) -> String {
        super::completions(shell, &CommandLine::command())
    }

    #[test]
    fn every_shell_completes_every_verb_that_is_shown() {
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for verb in CommandLine::command().get_subcommands() {
                let name = verb.get_name();
                let offered = script.contains(&format!("{PROGRAM};{name}"))
                    || script.contains(&format!("'{name}"))
                    || script.contains(&format!("\"{name}\""))
                    || script.contains(&format!("procbroker,{name})"));
                assert_eq!(offered, !verb.is_hide_set(), "{shell}: {name}");
            }
        }
    }

    #[test]
    fn files_are_offered_where_a_file_is_wanted_and_nowhere_else() {
        let fish = completions(Shell::Fish);
        let rule = |verb: &str, flag: &str| {
            let [verb, flag] = [format!("using_subcommand {verb}\""), format!(" -l {flag} ")];
            fish.lines().find(|line| line.contains(&verb) && line.contains(&flag)).unwrap().to_owned()
        };
        for (verb, flag) in [
            ("create", "label"),
            ("create", "name"),
            ("create", "ready"),
            ("create", "env"),
            ("serve", "log-bytes"),
        ] {
            let rule = rule(verb, flag);
            assert!(rule.ends_with(" -r -f") || rule.contains(" -r -f "), "{rule}");
        }
        for (verb, flag) in [("create", "cwd"), ("create", "cleanup"), ("serve", "state-dir")] {
            assert!(rule(verb, flag).contains(" -r -F"), "{}", rule(verb, flag));
        }
        let zsh = completions(Shell::Zsh);
        let label = zsh.lines().find(|line| line.contains("--label=[A label to select")).unwrap();
        assert!(label.contains(":KEY=VALUE:'"), "{label}");
        let bash = completions(Shell::Bash);
        let (_, label) = bash.split_once("                --label)").unwrap();
        assert!(label.trim_start().starts_with("COMPREPLY=(\"${cur}\")"), "{label}");
    }

    #[test]
    fn shells_ask_for_children_and_signals_where_they_stand() {
        let bash = completions(Shell::Bash);
        for place in [
            "destroy:*) what=children",
            "rm:*) what=children",
            "signal:*) what=children-and-signals",
            "logs:0) what=all-children",
        ] {
            assert!(bash.contains(place), "{place} is not in {bash}");
        }
        let zsh = completions(Shell::Zsh);
        for place in [
            "The children, by id or name:_procbroker_children'",
            "(-9):_procbroker_children_and_signals'",
            ":_procbroker_all_children'",
        ] {
            assert!(zsh.contains(place), "{place} is not in {zsh}");
        }
        assert!(!zsh.contains("by id or name:_default"), "{zsh}");
        let fish = completions(Shell::Fish);
        assert!(
            fish.contains("using_subcommand destroy stop rm\" -f -a \"(procbroker complete children"),
            "{fish}"
        );
    }
}
