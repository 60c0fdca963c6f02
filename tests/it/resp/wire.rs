//! A connection that keeps every byte of what it reads.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any reply takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// A reply as it came: its first line, and what is nested in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub items: Vec<Frame>,
}

pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        Self { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, words: &[Vec<u8>]) {
        let mut wire = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            wire.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            wire.extend_from_slice(word);
            wire.extend_from_slice(b"\r\n");
        }
        self.send_raw(&wire);
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the server reads");
    }

    pub fn command(&mut self, words: &[&str]) -> Frame {
        self.send(&words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        self.read().expect("a reply")
    }

    /// One reply or message.
    pub fn read(&mut self) -> io::Result<Frame> {
        let head = self.line()?;
        let length = || std::str::from_utf8(&head[1..]).ok().and_then(|text| text.parse::<i64>().ok());
        let (mut body, mut items) = (Vec::new(), Vec::new());
        match (head.first(), length()) {
            (Some(b'$' | b'='), Some(length @ 0..)) => {
                body = vec![0; length as usize + 2];
                self.stream.read_exact(&mut body)?;
            }
            (Some(b'*' | b'~' | b'>'), Some(length)) => {
                items = (0..length).map(|_| self.read()).collect::<io::Result<_>>()?;
            }
            (Some(b'%'), Some(length)) => items = (0..length * 2).map(|_| self.read()).collect::<io::Result<_>>()?,
            _ => {}
        }
        Ok(Frame { head, body, items })
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }

    /// Whether the server has closed the connection, and said nothing more before.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

impl Frame {
    /// For people, and for comparison.
    pub fn show(&self) -> String {
        let mut text = self.head.escape_ascii().to_string();
        if !self.body.is_empty() {
            text.push_str(&format!(" {}", self.body.escape_ascii()));
        }
        if !self.items.is_empty() {
            let items: Vec<String> = self.items.iter().map(Self::show).collect();
            text.push_str(&format!(" [{}]", items.join(", ")));
        }
        text
    }

    pub fn sorted(mut self) -> Self {
        for item in &mut self.items {
            *item = std::mem::replace(item, Self { head: vec![], body: vec![], items: vec![] }).sorted();
        }
        self.items.sort();
        self
    }

    /// The kinds of the reply and of its elements, without their content.
    pub fn shape(&self) -> String {
        let kind = |frame: &Self| char::from(frame.head.first().copied().unwrap_or(b'?'));
        match self.items.first() {
            Some(first) if self.head[0] == b'*' => format!("{} of {}", kind(self), kind(first)),
            _ => kind(self).to_string(),
        }
    }
}
