//! The terminal: taken over, drawn on, and given back as it was, whatever happens.

use std::io::{self, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{panic, thread};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use tokio::sync::mpsc;

/// Whether the terminal is ours: it is given back once, or a second time would move the cursor.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, while it is ours. There is one at a time.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    _given_back: GivenBack,
}

/// Gives the terminal back when it is dropped.
#[derive(Debug)]
struct GivenBack;

// === impl Screen ===

impl Screen {
    /// Takes the terminal over. From now on a panic gives it back before it is told.
    ///
    /// # Errors
    /// It is no terminal, or has gone.
    pub fn open() -> io::Result<Self> {
        TAKEN.store(true, Ordering::Relaxed);
        let given_back = GivenBack;
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(Self { terminal, _given_back: given_back })
    }

    /// Draws one picture; what is as it was is not sent again.
    ///
    /// # Errors
    /// The terminal has gone.
    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(|_| ())
    }

    /// Keys and changes of size, read by a thread of its own: there is no other way to wait for them. It ends with the
    /// program.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn events(&self) -> io::Result<mpsc::Receiver<Event>> {
        let (sender, receiver) = mpsc::channel(64);
        let reads = move || {
            while let Ok(event) = event::read() {
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("keys".to_owned()).spawn(reads)?;
        Ok(receiver)
    }
}

// === impl GivenBack ===

impl Drop for GivenBack {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        // A terminal that has gone needs none of it.
        let _raw = disable_raw_mode();
        let _screen = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}
