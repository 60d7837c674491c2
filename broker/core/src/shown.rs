//! How much of a child's own texts is shown: long ones are shortened, and the view says so.

use std::sync::Arc;

use procbroker_protocol::{Child as ChildView, CreateParams, Field, Fields, Response};

use crate::limits::{ANSWER_TEXT_BYTES_MAX, COMMAND_SHOWN_BYTES_MAX};

/// What a child takes in an answer beside its texts, in bytes, in the longer of both encodings: every other member, and the
/// few signals that end most children.
const REST_BYTES: usize = 1024;

/// What one more signal of its end takes.
const STEP_BYTES: usize = 64;

/// The most that JSON makes of one byte of a text: `\u001b`.
const ESCAPED_BYTES_MAX: usize = 6;

/// Returns as much of a command line as is shown, and whether that is less than all of it.
pub(crate) fn beginning(command: &[String], bytes: usize) -> (Vec<String>, bool) {
    let mut room = bytes;
    let mut shown = Vec::new();
    for word in command {
        // The quotes and the comma around it: empty words are no way to have any number of them.
        room = room.saturating_sub(3);
        if room == 0 {
            return (shown, true);
        }
        let begin = cut(word, room);
        shown.push(begin.to_owned());
        if begin.len() < word.len() {
            return (shown, true);
        }
        room -= begin.len();
    }
    (shown, false)
}

/// Returns the beginning of a text, as many whole characters as fit into so many bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns what a message calls a child: by its name where it has one, which is what people know it by, and by its id.
pub(crate) fn title(child: &ChildView) -> String {
    child.name.as_ref().map_or_else(|| child.id.to_string(), |name| format!("{name} ({})", child.id))
}

/// Returns the command line of a child as lists, events and the log show it, and what is shortened of the child by that.
pub(crate) fn command(params: &CreateParams) -> (Vec<String>, Fields) {
    let (command, is_shortened) = beginning(&params.command, COMMAND_SHOWN_BYTES_MAX);
    (command, is_shortened.then_some(Field::Command).into_iter().collect())
}

/// Returns a child with all that is known of it.
pub(crate) fn whole(view: &Arc<ChildView>, params: &CreateParams) -> Arc<ChildView> {
    if view.shortened.is_empty() {
        return Arc::clone(view);
    }
    let command = params.command.clone();
    Arc::new(ChildView { command, shortened: Fields::default(), ..ChildView::clone(view) })
}

/// Shortens the children of an answer that would be too long for a message: what was done is answered, however many
/// children it was done to.
pub(crate) fn fitting(response: Response) -> Response {
    match response {
        Response::Children(children) => Response::Children(all_fitting(children)),
        Response::PartialChildren(children) => Response::PartialChildren(children.map_all(all_fitting)),
        Response::ShutDown(mut report) => {
            report.children = all_fitting(report.children);
            Response::ShutDown(report)
        }
        Response::Created(_)
        | Response::Child(_)
        | Response::Logs(_)
        | Response::Subscribed(_)
        | Response::Status(_)
        | Response::Upgraded
        | Response::Got(_)
        | Response::Metrics(_) => response,
    }
}

fn all_fitting(mut children: Vec<Arc<ChildView>>) -> Vec<Arc<ChildView>> {
    let total: usize = children.iter().map(|child| bytes_at_most(child)).sum();
    if total <= ANSWER_TEXT_BYTES_MAX {
        return children;
    }
    // Each has the same part of the room: who has long texts shortens those of nobody else.
    let share = ANSWER_TEXT_BYTES_MAX / children.len().max(1);
    for child in &mut children {
        if bytes_at_most(child) > share {
            *child = Arc::new(within(child, share));
        }
    }
    children
}

/// Returns the most bytes that a child takes in an answer.
fn bytes_at_most(child: &ChildView) -> usize {
    let steps = child.exit.as_ref().map_or(0, |exit| exit.steps.len());
    REST_BYTES + steps * STEP_BYTES + ESCAPED_BYTES_MAX * text_bytes(child)
}

/// Returns how many bytes the texts of a child have.
pub(crate) fn text_bytes(child: &ChildView) -> usize {
    let words: usize = child.command.iter().map(|word| word.len() + 1).sum();
    words + label_bytes(child) + status_bytes(child)
}

fn label_bytes(child: &ChildView) -> usize {
    child.labels.iter().map(|(key, value)| key.len() + value.len() + 2).sum()
}

fn status_bytes(child: &ChildView) -> usize {
    child.status_text.as_ref().map_or(0, String::len)
}

/// Returns a child of which the long texts are left out, and as much of the command is left as there is room for.
fn within(child: &ChildView, bytes: usize) -> ChildView {
    let mut child = child.clone();
    let mut left_out: Vec<Field> = Vec::new();
    let rest = bytes.saturating_sub(REST_BYTES);
    let room = (rest - shorten_steps(&mut child, rest / 2, &mut left_out)) / ESCAPED_BYTES_MAX;
    let words: usize = child.command.iter().map(|word| word.len() + 3).sum();
    let command_room = words.min(room / 2);
    if label_bytes(&child) > (room - command_room) / 2 {
        child.labels.clear();
        left_out.push(Field::Labels);
    }
    if status_bytes(&child) > (room - command_room) / 2 {
        child.status_text = None;
        left_out.push(Field::StatusText);
    }
    let (command, is_shortened) = beginning(&child.command, command_room);
    child.command = command;
    left_out.extend(is_shortened.then_some(Field::Command));
    child.shortened = child.shortened.or(left_out.into_iter().collect());
    child
}

/// Leaves out the first signals of a child's end that there is no room for, and returns how many bytes the others take.
fn shorten_steps(child: &mut ChildView, room: usize, left_out: &mut Vec<Field>) -> usize {
    let Some(exit) = &mut child.exit else {
        return 0;
    };
    let excess = exit.steps.len().saturating_sub(room / STEP_BYTES);
    if excess > 0 {
        exit.steps.drain(..excess);
        left_out.push(Field::Exit);
    }
    exit.steps.len() * STEP_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::Child;
    use crate::child::tests::intent;
    use procbroker_protocol::child::StepTaken;
    use procbroker_protocol::{Exit, ExitReason, ExitStatus, Signal, Timestamp};

    fn view() -> ChildView {
        ChildView::clone(Child::new(&intent(1, |_| ())).view())
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_command_is_shown_whole_as_long_as_there_is_room() {
        let short = words(&["sleep", "60"]);
        assert_eq!(beginning(&short, 100), (short, false));
    }

    #[test]
    fn a_long_command_is_cut_between_two_characters_and_says_so() {
        assert_eq!(beginning(&words(&["äää", "x"]), 3 + 5), (words(&["ää"]), true));
        assert_eq!(beginning(&words(&["a", "b", "c"]), 9), (words(&["a", "b"]), true));
        assert_eq!(beginning(&vec![String::new(); 1000], 30).0.len(), 9, "empty words take room too");
    }

    #[test]
    fn an_answer_about_children_with_long_texts_fits_into_a_message() {
        let mut long = view();
        long.command = words(&["\u{1}".repeat(COMMAND_SHOWN_BYTES_MAX).as_str()]);
        long.labels = (0..16).map(|number| (number.to_string(), "\u{1}".repeat(1000))).collect();
        let (long, short) = (Arc::new(long), Arc::new(view()));
        let mut children = vec![Arc::clone(&long); 10_000];
        children.push(Arc::clone(&short));
        let fitting = all_fitting(children);
        let total: usize = fitting.iter().map(|child| bytes_at_most(child)).sum();
        assert!(total <= ANSWER_TEXT_BYTES_MAX, "{total}");
        let expected: Fields = [Field::Command, Field::Labels].into_iter().collect();
        assert_eq!(fitting[0].shortened, expected);
        assert!(!fitting[0].command[0].is_empty(), "something is left of the command");
        assert_eq!(fitting[10_000], short, "what is short stays as it is");
    }

    #[test]
    fn an_answer_about_children_that_took_many_signals_to_end_fits_into_a_message() {
        let mut stubborn = view();
        stubborn.command = words(&["\u{1}".repeat(COMMAND_SHOWN_BYTES_MAX).as_str()]);
        stubborn.labels = (0..16).map(|number| (number.to_string(), "\u{1}".repeat(1000))).collect();
        let at = Timestamp::from_micros(1);
        let steps = vec![StepTaken { signal: Signal::KILL, at }; 33];
        let exit = Exit::new(ExitStatus::Code(0), ExitReason::Destroyed, at);
        stubborn.exit = Some(Exit { steps: steps.clone(), ..exit });
        for count in [10_000, 40_000] {
            let child = Arc::new(stubborn.clone());
            let fitting = all_fitting(std::iter::repeat_n(child, count).collect());
            let total: usize = fitting.iter().map(|child| bytes_at_most(child)).sum();
            assert!(total <= ANSWER_TEXT_BYTES_MAX, "{count}: {total}");
            let left = &fitting[0].exit.as_ref().unwrap().steps;
            assert!(steps.ends_with(left));
            let is_told = fitting[0].shortened.iter().any(|field| field == Field::Exit);
            assert_eq!(is_told, left.len() < steps.len());
        }
    }

    #[test]
    fn a_few_children_are_not_shortened() {
        let mut long = view();
        long.command = words(&["x".repeat(COMMAND_SHOWN_BYTES_MAX).as_str()]);
        let long = Arc::new(long);
        let children = vec![long; 100];
        assert_eq!(fitting(Response::Children(children.clone())), Response::Children(children));
    }
}
