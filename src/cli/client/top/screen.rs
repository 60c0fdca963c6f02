//! Draws the facts. Pure: the same facts and size give the same screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState};

use super::super::connection::Failure;
use super::facts::{Facts, Incident, Queue, Worker};

/// Which list the arrows move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    Queues,
    Workers,
    Incidents,
}

impl Pane {
    pub fn next(self) -> Self {
        match self {
            Self::Queues => Self::Workers,
            Self::Workers => Self::Incidents,
            Self::Incidents => Self::Queues,
        }
    }
}

/// The shown data and the position in it.
pub struct View {
    facts: Facts,
    /// Why the last refresh failed; the data are those of the refresh before.
    trouble: Option<String>,
    pub pane: Pane,
    places: [TableState; 3],
}

impl View {
    pub fn new(facts: Facts) -> Self {
        let places = [0; 3].map(|place| TableState::default().with_selected(place));
        Self { facts, trouble: None, pane: Pane::Queues, places }
    }

    pub fn show_refresh(&mut self, refreshed: Result<Facts, Failure>) {
        match refreshed {
            Ok(facts) => (self.facts, self.trouble) = (facts, None),
            Err(failure) => self.trouble = Some(failure.to_string()),
        }
        self.go(0);
    }

    /// Moves within the current list.
    pub fn go(&mut self, by: isize) {
        let rows = [self.facts.queues.len(), self.facts.workers.len(), self.facts.incidents.len()];
        let place = &mut self.places[self.pane as usize];
        let last = rows[self.pane as usize].saturating_sub(1);
        place.select(Some(place.selected().unwrap_or(0).saturating_add_signed(by).min(last)));
    }
}

pub fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let incidents = u16::try_from(view.facts.incidents.len().clamp(1, 6)).unwrap_or(6) + 3;
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(incidents),
        Constraint::Length(1),
    ]);
    let [head, queues, workers, odd, foot] = areas.areas(frame.area());
    draw_head(frame, head, view);
    draw_queues(frame, queues, view);
    draw_workers(frame, workers, view);
    draw_incidents(frame, odd, view);
    let foot_line = match &view.trouble {
        Some(trouble) => Line::styled(trouble.lines().next().unwrap_or_default().to_owned(), bad()),
        None => {
            Line::styled("q quit  ↑↓ move  Tab or 1 2 3 list  r look now", Style::new().add_modifier(Modifier::DIM))
        }
    };
    frame.render_widget(Paragraph::new(foot_line), foot);
}

fn bad() -> Style {
    Style::new().fg(Color::Red)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let [words, trend] = Layout::horizontal([Constraint::Min(46), Constraint::Max(60)]).areas(area);
    let facts = &view.facts;
    let waiting: i64 = facts.queues.iter().map(|queue| queue.waiting + queue.held).sum();
    let online = facts.workers.iter().filter(|worker| worker.online).count();
    let active: i64 = facts.workers.iter().filter_map(|worker| worker.active).sum();
    let slots: i64 = facts.workers.iter().filter(|worker| worker.online).filter_map(|worker| worker.slots).sum();
    let rates = &facts.rates;
    let failed = if rates.failed > 0.0 { bad() } else { Style::new() };
    let lines = vec![
        Line::from(format!("{waiting} waiting  {online} workers online  {active} of {slots} slots at work")),
        Line::from(vec![
            Span::raw(format!("{:.1}/s accepted  {:.1}/s succeeded  ", rates.accepted, rates.succeeded)),
            Span::styled(format!("{:.2}/s failed", rates.failed), failed),
        ]),
    ];
    frame.render_widget(Paragraph::new(lines), words);
    frame.render_widget(Sparkline::default().data(&rates.trend), trend);
}

fn list<'a, const N: usize>(
    view: &View,
    pane: Pane,
    title: String,
    heads: [&'a str; N],
    widths: [Constraint; N],
    rows: Vec<Row<'a>>,
) -> Table<'a> {
    let own = if view.pane == pane { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let mark = if view.pane == pane { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
    Table::new(rows, widths)
        .header(Row::new(heads).style(Style::new().add_modifier(Modifier::DIM)))
        .row_highlight_style(mark)
        .block(Block::bordered().title(Span::styled(title, own)))
}

fn number(value: Option<i64>) -> Cell<'static> {
    Cell::from(Line::from(value.map_or_else(|| "-".to_owned(), |value| value.to_string())).right_aligned())
}

fn draw_queues(frame: &mut Frame<'_>, area: Rect, view: &mut View) {
    let row = |queue: &Queue| {
        let oldest = queue.oldest.map_or_else(|| "-".to_owned(), seconds);
        let (state, style) = match (queue.paused, queue.waiting > 0 && queue.consumers == 0) {
            (true, _) => ("paused", Style::new().fg(Color::Yellow)),
            (false, true) => ("not served", bad()),
            (false, false) => ("", Style::new()),
        };
        Row::new([
            Cell::from(queue.name.clone()),
            number(Some(queue.waiting)),
            number(Some(queue.held)),
            number(Some(queue.reserved)),
            number(Some(queue.consumers)),
            Cell::from(Line::from(oldest).right_aligned()),
            Cell::from(Span::styled(state, style)),
        ])
    };
    let rows = view.facts.queues.iter().map(row).collect();
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(10),
    ];
    let heads = ["QUEUE", "  WAITING", "     HELD", " RESERVED", "CONSUMERS", "   OLDEST", "STATE"];
    let title = format!(" Queues ({}) ", view.facts.queues.len());
    let table = list(view, Pane::Queues, title, heads, widths, rows);
    frame.render_stateful_widget(table, area, &mut view.places[Pane::Queues as usize]);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, view: &mut View) {
    let row = |worker: &Worker| {
        let load = worker.load.map_or_else(|| "-".to_owned(), |load| format!("{load:.2}"));
        let style = if worker.online { Style::new() } else { Style::new().add_modifier(Modifier::DIM) };
        Row::new([
            Cell::from(worker.name.clone()),
            Cell::from(if worker.online { "online" } else { "offline" }),
            number(worker.active),
            number(worker.slots),
            number(worker.processed),
            Cell::from(Line::from(load).right_aligned()),
            Cell::from(worker.queues.clone()),
        ])
        .style(style)
    };
    let rows = view.facts.workers.iter().map(row).collect();
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    let heads = ["WORKER", "STATE", " ACTIVE", " SLOTS", " PROCESSED", "  LOAD", "QUEUES"];
    let title = format!(" Workers ({}) ", view.facts.workers.len());
    let table = list(view, Pane::Workers, title, heads, widths, rows);
    frame.render_stateful_widget(table, area, &mut view.places[Pane::Workers as usize]);
}

fn draw_incidents(frame: &mut Frame<'_>, area: Rect, view: &mut View) {
    let row = |incident: &Incident| {
        let kind = Span::styled(incident.kind.clone(), if incident.by.is_some() { Style::new() } else { bad() });
        let by = incident.by.as_ref().map(|by| format!(" (looked after by {by})")).unwrap_or_default();
        Row::new([
            Cell::from(kind),
            Cell::from(incident.subject.clone()),
            Cell::from(incident.since.clone()),
            Cell::from(format!("{}{by}", incident.detail)),
        ])
    };
    let rows = view.facts.incidents.iter().map(row).collect();
    let widths = [Constraint::Length(18), Constraint::Length(20), Constraint::Length(25), Constraint::Fill(1)];
    let title = match view.facts.incidents.len() {
        0 => " Nothing is wrong now ".to_owned(),
        open => format!(" Incidents ({open}) "),
    };
    let table = list(view, Pane::Incidents, title, ["KIND", "SUBJECT", "SINCE", "DETAIL"], widths, rows);
    frame.render_stateful_widget(table, area, &mut view.places[Pane::Incidents as usize]);
}

/// `5 s`, `3 min`, `2 h`, `4 d`.
fn seconds(value: f64) -> String {
    match value {
        value if value < 120.0 => format!("{value:.0} s"),
        value if value < 7_200.0 => format!("{:.0} min", value / 60.0),
        value if value < 172_800.0 => format!("{:.0} h", value / 3_600.0),
        value => format!("{:.0} d", value / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::client::top::facts::Rates;

    fn facts() -> Facts {
        let queue =
            |name: &str, waiting, consumers| Queue { name: name.into(), waiting, consumers, ..Queue::default() };
        Facts {
            queues: vec![queue("mail", 12, 0), queue("crawl", 3, 2)],
            workers: vec![Worker {
                name: "w1@host".into(),
                online: true,
                active: Some(1),
                slots: Some(4),
                ..Worker::default()
            }],
            incidents: vec![Incident { kind: "no_consumer".into(), subject: "mail".into(), ..Incident::default() }],
            rates: Rates { accepted: 2.5, ..Rates::default() },
        }
    }

    fn drawn(view: &mut View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>() + "\n").collect()
    }

    #[test]
    fn the_screen_shows_queues_workers_rates_and_incidents() {
        let screen = drawn(&mut View::new(facts()), 100, 30);
        for words in ["mail", "not served", "w1@host", "1 of 4 slots", "2.5/s accepted", "no_consumer", "q quit"] {
            assert!(screen.contains(words), "{words} is missing:\n{screen}");
        }
    }

    #[test]
    fn a_gateway_that_is_away_is_told_and_what_was_seen_stays() {
        let mut view = View::new(facts());
        view.show_refresh(Err(Failure::Unreachable("nobody answers".into())));
        let screen = drawn(&mut view, 100, 30);
        assert!(screen.contains("nobody answers") && screen.contains("w1@host"), "{screen}");
    }

    #[test]
    fn arrows_stay_in_the_list_and_a_small_terminal_is_drawn_too() {
        let mut view = View::new(facts());
        for by in [5, 5, -1, -9] {
            view.go(by);
        }
        assert_eq!(view.places[0].selected(), Some(0));
        view.go(7);
        assert_eq!(view.places[0].selected(), Some(1));
        drawn(&mut view, 20, 5);
        drawn(&mut View::new(Facts::default()), 1, 1);
    }
}
