//! The terminal: taken over while the screen is up, and given back however the
//! process goes on, by the end, an error, a panic or a second signal.

use std::io::{self, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};

use super::draw::{self, Picture};
use crate::logging::{Held, Logging};

/// Whether the terminal is ours.
static IS_UP: AtomicBool = AtomicBool::new(false);

/// Leaves the alternate screen and shows the cursor.
const LEAVE: &[u8] = b"\x1b[?1049l\x1b[?25h\x1b[0m";

/// Gives the terminal back, if the screen is up. For whoever ends the process
/// from elsewhere than the thread that draws; it does not wait for that one.
pub fn restore_terminal() {
    if IS_UP.swap(false, Ordering::SeqCst) {
        // Past standard output's lock, which the drawing thread may hold.
        let _ = rustix::io::write(io::stdout(), LEAVE);
        let _ = disable_raw_mode();
    }
}

/// The screen; dropped, the terminal is as it was, and log lines that came
/// meanwhile follow on standard error.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    /// Whether keys can be read: not without a controlling terminal.
    has_keys: bool,
    // Dropped behind the terminal's restoration.
    log: Held,
}

impl Screen {
    /// Takes the terminal over.
    pub fn open(logging: &Logging) -> io::Result<Screen> {
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        enable_raw_mode()?;
        IS_UP.store(true, Ordering::SeqCst);
        keep_panics(logging);
        // From here on, dropping it gives the terminal back.
        let mut screen = Screen {
            terminal,
            has_keys: true,
            log: logging.hold(),
        };
        execute!(
            screen.terminal.backend_mut(),
            EnterAlternateScreen,
            // Not ratatui's, which asks for the cursor: some terminals never answer.
            Clear(ClearType::All),
            cursor::Hide
        )?;
        Ok(screen)
    }

    /// Draws.
    pub fn draw(&mut self, mut picture: Picture) -> io::Result<()> {
        picture.warning = self.log.newest_warning();
        self.terminal.draw(|frame| draw::draw(frame, &picture))?;
        Ok(())
    }

    /// Waits so long for a key that means something, or until the screen is
    /// resized.
    pub fn wait(&mut self, patience: Duration) -> Option<Key> {
        let until = Instant::now() + patience;
        while self.has_keys {
            match event::poll(until.saturating_duration_since(Instant::now())) {
                Ok(false) => return None,
                Ok(true) => match event::read() {
                    Ok(Event::Resize(..)) => return None,
                    Ok(event) => {
                        if let Some(key) = Key::of(&event) {
                            return Some(key);
                        }
                    }
                    Err(_) => self.has_keys = false,
                },
                Err(_) => self.has_keys = false,
            }
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        None
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// q or Esc: end.
    Quit,
    /// Ctrl-C, of which the terminal makes no signal while it is ours: as
    /// everywhere else, the first asks for the end and the second ends at once.
    Interrupt,
}

impl Key {
    fn of(event: &Event) -> Option<Key> {
        let Event::Key(key) = event else { return None };
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            _ if key.kind != KeyEventKind::Press => None,
            KeyCode::Char('c') if is_control => Some(Key::Interrupt),
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Key::Quit),
            _ => None,
        }
    }
}

/// Keeps the message of a panic for later while the screen is up.
fn keep_panics(logging: &Logging) {
    static ONCE: Once = Once::new();
    let logging = logging.clone();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !logging.keep(tracing::Level::ERROR, panic.to_string()) {
                usual(panic);
            }
        }));
    });
}
