//! What a user sees on a terminal while a program writes to it.

/// The screen at the end, and each line that was seen on the way.
#[derive(Default)]
pub struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// A line each time the cursor left it, if it had a text then.
    pub seen: Vec<String>,
}

impl Screen {
    /// # Panics
    /// When something is written that moves more than a progress bar has to: a colour, a title, a bell.
    pub fn after(written: &str) -> Self {
        let mut screen = Self { rows: vec![Vec::new()], ..Self::default() };
        let mut rest = written.chars();
        while let Some(char) = rest.next() {
            match char {
                '\r' => screen.go(screen.row, 0),
                '\n' => screen.go(screen.row + 1, 0),
                '\u{1b}' => {
                    assert_eq!(rest.next(), Some('['), "{written:?}");
                    let mut word = String::new();
                    while let Some(char) = rest.next().inspect(|char| word.push(*char)) {
                        if char.is_ascii_alphabetic() {
                            break;
                        }
                    }
                    screen.obey(&word, written);
                }
                char if char.is_control() => panic!("{char:?} in {written:?}"),
                char => screen.put(char),
            }
        }
        screen.go(screen.row, screen.column);
        screen
    }

    /// The lines that are there at the end, without empty ones below.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(|row| line(row)).collect();
        lines.join("\n").trim_end().to_owned()
    }

    fn obey(&mut self, word: &str, written: &str) {
        match word {
            "K" | "0K" => self.rows[self.row].truncate(self.column),
            "2K" => self.rows[self.row].clear(),
            _ => match word.strip_suffix('A').map(|rows| rows.parse().unwrap_or(1)) {
                Some(rows) => self.go(self.row.saturating_sub(rows), self.column),
                None => panic!("{word:?} in {written:?}"),
            },
        }
    }

    fn go(&mut self, row: usize, column: usize) {
        let left = line(&self.rows[self.row]);
        if !left.is_empty() && self.seen.last() != Some(&left) {
            self.seen.push(left);
        }
        if self.rows.len() <= row {
            self.rows.resize(row + 1, Vec::new());
        }
        (self.row, self.column) = (row, column);
    }

    fn put(&mut self, char: char) {
        let row = &mut self.rows[self.row];
        if row.len() <= self.column {
            row.resize(self.column + 1, ' ');
        }
        row[self.column] = char;
        self.column += 1;
    }
}

fn line(row: &[char]) -> String {
    row.iter().collect::<String>().trim_end().to_owned()
}
