//! What a key makes of what is shown, and what it asks for.

use procbroker_protocol::request::LogStream;
use procbroker_protocol::{ChildId, ChildState};

use super::model::{Mode, Model, TopQuery, UserAction, pane_lines};
use crate::cli::values::signal;

/// How far a page is.
const PAGE: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyPress {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Character(char),
    /// Ctrl-U.
    Clear,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-C.
    Interrupt,
}

impl Model {
    /// A key was pressed.
    pub(super) fn pressed(&mut self, key: KeyPress) -> Option<UserAction> {
        if key == KeyPress::Interrupt {
            return Some(UserAction::Quit);
        }
        if key == KeyPress::Suspend {
            return Some(UserAction::Suspend);
        }
        self.notice = None;
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browsed(key),
            Mode::Help => None,
            Mode::Filter => {
                self.filtered(key);
                None
            }
            Mode::Confirm { wish, .. } => (key == KeyPress::Character('y')).then_some(wish),
            Mode::Signal { child, title, text } => self.typed_signal(key, child, title, text),
        }
    }

    fn browsed(&mut self, key: KeyPress) -> Option<UserAction> {
        match key {
            KeyPress::Character('q') => return Some(UserAction::Quit),
            KeyPress::Up | KeyPress::Character('k') => self.select(|place, _| place.saturating_sub(1)),
            KeyPress::Down | KeyPress::Character('j') => self.select(|place, _| place + 1),
            KeyPress::PageUp if self.has_pane => self.scroll(usize::saturating_add),
            KeyPress::PageDown if self.has_pane => self.scroll(usize::saturating_sub),
            KeyPress::PageUp => self.select(|place, _| place.saturating_sub(PAGE)),
            KeyPress::PageDown => self.select(|place, _| place + PAGE),
            KeyPress::Home => self.select(|_, _| 0),
            KeyPress::End => self.select(|_, last| last),
            KeyPress::Enter => {
                self.has_pane = !self.has_pane;
                self.show_the_end();
            }
            KeyPress::Character('e') => {
                self.has_pane = true;
                self.stream = match self.stream {
                    LogStream::Stdout => LogStream::Stderr,
                    LogStream::Stderr => LogStream::Stdout,
                };
                self.show_the_end();
            }
            KeyPress::Escape if self.has_pane => {
                self.has_pane = false;
                self.show_the_end();
            }
            KeyPress::Escape => self.filter.clear(),
            KeyPress::Character('/') => {
                self.filter.clear();
                self.mode = Mode::Filter;
            }
            KeyPress::Character('?' | 'h') => self.mode = Mode::Help,
            KeyPress::Character('o') => self.order = self.order.next(),
            KeyPress::Character('s') => self.confirm("stop", UserAction::Stop),
            KeyPress::Character('r') => self.confirm("restart", UserAction::Restart),
            KeyPress::Character('x') => {
                if let Some((child, title)) = self.selected_alive() {
                    self.mode = Mode::Signal { child, title, text: String::new() };
                }
            }
            KeyPress::Backspace
            | KeyPress::Character(_)
            | KeyPress::Clear
            | KeyPress::Suspend
            | KeyPress::Interrupt => {}
        }
        None
    }

    /// Selects another child, by its place and that of the last one.
    fn select(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let visible = self.visible();
        let last = visible.len().saturating_sub(1);
        let place = to(self.selected_place(&visible), last).min(last);
        let selected = visible.get(place).map(|row| row.id);
        if selected != self.selected {
            self.selected = selected;
            self.show_the_end();
        }
    }

    /// Shows the end of the output, as it is when it is asked for next.
    fn show_the_end(&mut self) {
        self.below = 0;
        self.asked_last = TopQuery::List;
    }

    /// Moves by a page in the output that is shown, of which one line stays in sight.
    fn scroll(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let room = usize::from(pane_lines(self.height)).saturating_sub(1);
        let most = self.log().map_or(0, <[String]>::len).saturating_sub(room);
        self.below = to(self.below, room.saturating_sub(1).max(1)).min(most);
    }

    /// The selected child; of one that has ended it is told that nothing can be done to it.
    fn selected_alive(&mut self) -> Option<(ChildId, String)> {
        let (id, title, state) = self.selected().map(|row| (row.id, row.title.clone(), row.state))?;
        if state == ChildState::Ended {
            self.notice = Some(format!("{title} has ended"));
            return None;
        }
        Some((id, title))
    }

    fn confirm(&mut self, verb: &str, wish: impl FnOnce(ChildId) -> UserAction) {
        // Which one is meant must not change while the question stands.
        let Some((id, title)) = self.selected_alive() else { return };
        self.selected = Some(id);
        self.mode = Mode::Confirm { wish: wish(id), question: format!("{verb} {title}? (y/n)") };
    }

    fn filtered(&mut self, key: KeyPress) {
        match key {
            KeyPress::Enter => {}
            KeyPress::Escape => self.filter.clear(),
            key => {
                edit(&mut self.filter, key);
                self.mode = Mode::Filter;
            }
        }
    }

    fn typed_signal(
        &mut self,
        key: KeyPress,
        child: ChildId,
        title: String,
        mut text: String,
    ) -> Option<UserAction> {
        match key {
            KeyPress::Escape => None,
            KeyPress::Enter => match signal(&text) {
                Ok(signal) => Some(UserAction::Signal(child, signal)),
                Err(error) => {
                    self.notice = Some(error.to_string());
                    None
                }
            },
            key => {
                edit(&mut text, key);
                self.mode = Mode::Signal { child, title, text };
                None
            }
        }
    }
}

/// What a key does in a line that is typed.
fn edit(line: &mut String, key: KeyPress) {
    match key {
        KeyPress::Backspace => drop(line.pop()),
        KeyPress::Clear => line.clear(),
        KeyPress::Character(character) => line.push(character),
        KeyPress::Up
        | KeyPress::Down
        | KeyPress::PageUp
        | KeyPress::PageDown
        | KeyPress::Home
        | KeyPress::End
        | KeyPress::Enter
        | KeyPress::Escape
        | KeyPress::Suspend
        | KeyPress::Interrupt => {}
    }
}
