//! The terminal that `top` takes over, and gives back whatever ends it.

use std::io;
use std::thread;

use ratatui::DefaultTerminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use tokio::sync::mpsc;

use super::draw::draw;
use super::keys::KeyPress;
use super::model::Model;

/// How many keys may wait.
const KEYS_WAITING: usize = 64;

/// A terminal that is drawn on. Dropping it gives the terminal back as it was; a panic does so before it is told.
pub(super) struct Terminal {
    screen: DefaultTerminal,
    has_colours: bool,
}

/// What comes from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Key(KeyPress),
    /// It has another size.
    Resized,
}

impl Terminal {
    /// Takes the terminal over.
    pub(super) fn open() -> io::Result<Self> {
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        match ratatui::try_init() {
            Ok(screen) => Ok(Self { screen, has_colours }),
            Err(error) => {
                // Half of it may be done.
                ratatui::restore();
                Err(error)
            }
        }
    }

    /// Draws everything that has changed.
    pub(super) fn show(&mut self, model: &mut Model) -> io::Result<()> {
        let has_colours = self.has_colours;
        self.screen
            .draw(|frame| {
                let area = frame.area();
                model.height = area.height;
                draw(model, has_colours, area, frame.buffer_mut());
            })
            .map(drop)
    }

    /// Gives the terminal back for as long as this takes, and takes it over again, whatever has become of it.
    pub(super) fn leave_while(&mut self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.screen.show_cursor()?;
        ratatui::try_restore()?;
        work()?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        // A new one takes nothing for drawn. The old one, told to clear itself, would ask the terminal for its cursor, and the
        // answer goes to who reads the keys.
        self.screen = ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Reads what is typed, on a thread of its own, which ends with the program.
pub(super) fn typed() -> io::Result<mpsc::Receiver<Typed>> {
    let (sender, receiver) = mpsc::channel(KEYS_WAITING);
    let read = move || {
        while let Ok(event) = event::read() {
            let typed = match event {
                Event::Key(key) => key_of(key).map(Typed::Key),
                Event::Resize(_, _) => Some(Typed::Resized),
                Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => None,
            };
            if typed.is_some_and(|typed| sender.blocking_send(typed).is_err()) {
                return;
            }
        }
    };
    thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// What a key means, if anything.
fn key_of(key: KeyEvent) -> Option<KeyPress> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if is_control => Some(KeyPress::Interrupt),
        KeyCode::Char('u') if is_control => Some(KeyPress::Clear),
        KeyCode::Char('z') if is_control => Some(KeyPress::Suspend),
        KeyCode::Char(_) if is_control => None,
        KeyCode::Char(character) => Some(KeyPress::Character(character)),
        KeyCode::Up => Some(KeyPress::Up),
        KeyCode::Down => Some(KeyPress::Down),
        KeyCode::PageUp => Some(KeyPress::PageUp),
        KeyCode::PageDown => Some(KeyPress::PageDown),
        KeyCode::Home => Some(KeyPress::Home),
        KeyCode::End => Some(KeyPress::End),
        KeyCode::Enter => Some(KeyPress::Enter),
        KeyCode::Esc => Some(KeyPress::Escape),
        KeyCode::Backspace => Some(KeyPress::Backspace),
        // Crossterm's enum may grow.
        _ => None,
    }
}
