//! `taskgate top`: a fleet on one screen of a terminal, refreshed every few seconds.
//!
//! A thread reads keys, because reading a terminal blocks; everything else happens between two refreshes. The terminal is restored
//! however this ends. If a gateway does not answer, the screen says so and shows the previous data.

mod facts;
mod screen;

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::facts::Facts;
use self::screen::{Pane, View};
use super::At;
use super::connection::{Client, Failure};

/// The longest time until the key thread notices that the screen was closed.
const LISTEN: Duration = Duration::from_millis(100);
/// How many keys may be pressed before they are handled.
const KEYS: usize = 64;

#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub at: At,
    /// Refresh after this many seconds
    #[arg(short = 'i', long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// The command of a key.
enum Wish {
    Leave,
    Move(isize),
    Pane(Pane),
    NextPane,
    Refresh,
    Redraw,
}

impl Top {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        if !stdout().is_terminal() {
            return Err(Failure::Usage("top needs a terminal; queues, workers and incidents print lists".to_owned()));
        }
        let first = Facts::read(client).await?;
        let mut terminal = ratatui::try_init().map_err(|error| Failure::Here(format!("the terminal: {error}")))?;
        let shown = self.shown(client, &mut terminal, first).await;
        ratatui::restore();
        shown.map(|()| ExitCode::SUCCESS)
    }

    async fn shown(
        &self,
        client: &Client,
        terminal: &mut ratatui::DefaultTerminal,
        first: Facts,
    ) -> Result<(), Failure> {
        let mut wishes = keyboard();
        let mut view = View::new(first);
        let mut due = Instant::now() + Duration::from_secs(self.interval);
        loop {
            terminal.draw(|frame| screen::draw(frame, &mut view)).map_err(|error| Failure::Here(error.to_string()))?;
            let wish = tokio::select! {
                wish = wishes.recv() => wish.unwrap_or(Wish::Leave),
                () = tokio::time::sleep_until(due) => Wish::Refresh,
            };
            match wish {
                Wish::Leave => return Ok(()),
                Wish::Move(by) => view.go(by),
                Wish::Pane(pane) => view.pane = pane,
                Wish::NextPane => view.pane = view.pane.next(),
                Wish::Redraw => {}
                Wish::Refresh => {
                    let mut reading = std::pin::pin!(Facts::read(client));
                    let refreshed = loop {
                        tokio::select! {
                            refreshed = &mut reading => break refreshed,
                            // A gateway that does not answer must not delay quitting.
                            wish = wishes.recv() => if matches!(wish, None | Some(Wish::Leave)) { return Ok(()) },
                        }
                    };
                    view.show_refresh(refreshed);
                    due = Instant::now() + Duration::from_secs(self.interval);
                }
            }
        }
    }
}

/// Sends the commands of pressed keys. The thread ends with the receiver.
fn keyboard() -> mpsc::Receiver<Wish> {
    let (sender, receiver) = mpsc::channel(KEYS);
    let over = Arc::new(AtomicBool::new(false));
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) && !sender.is_closed() {
            let wish = match event::poll(LISTEN).and_then(|is_there| is_there.then(event::read).transpose()) {
                Ok(Some(event)) => wish(&event),
                Ok(None) => None,
                // The terminal is gone.
                Err(_) => Some(Wish::Leave),
            };
            if let Some(wish) = wish {
                over.store(matches!(wish, Wish::Leave), Ordering::Relaxed);
                let _ = sender.blocking_send(wish);
            }
        }
    });
    receiver
}

fn wish(event: &Event) -> Option<Wish> {
    let Event::Key(key) = event else { return Some(Wish::Redraw) };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Leave),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Leave),
        KeyCode::Up | KeyCode::Char('k') => Some(Wish::Move(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Wish::Move(1)),
        KeyCode::PageUp => Some(Wish::Move(-10)),
        KeyCode::PageDown => Some(Wish::Move(10)),
        KeyCode::Tab | KeyCode::Right => Some(Wish::NextPane),
        KeyCode::Char('1') => Some(Wish::Pane(Pane::Queues)),
        KeyCode::Char('2') => Some(Wish::Pane(Pane::Workers)),
        KeyCode::Char('3') => Some(Wish::Pane(Pane::Incidents)),
        KeyCode::Char('r') => Some(Wish::Refresh),
        _ => None,
    }
}
