//! One command log on the built-in server and on a real redis-server: the same replies, byte for byte.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::harness::celery::root;
use crate::harness::{Redis, RedisOptions, wait};

use super::built_in::BuiltIn;
use super::log::{self, Action, Compare, Line};
use super::wire::{Frame, Wire};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Resp2,
    Resp3,
}

/// The connections to one server.
struct Session {
    port: u16,
    protocol: Protocol,
    wires: HashMap<u8, Wire>,
}

impl Session {
    fn new(port: u16, protocol: Protocol) -> Self {
        Self { port, protocol, wires: HashMap::new() }
    }

    fn wire(&mut self, connection: u8) -> &mut Wire {
        let (port, protocol) = (self.port, self.protocol);
        self.wires.entry(connection).or_insert_with(|| {
            let mut wire = Wire::connect(port);
            if protocol == Protocol::Resp3 {
                wire.command(&["HELLO", "3"]);
            }
            wire
        })
    }

    /// The server's answer to a line.
    fn play(&mut self, line: &Line) -> String {
        if let Action::Begin = line.action {
            self.wires.clear();
            let port = self.port;
            alone(port, self.wire(1));
            self.wire(1).command(&["FLUSHALL"]);
            self.wire(1).command(&["SCRIPT", "FLUSH"]);
            return String::new();
        }
        let port = self.port;
        let wire = self.wire(line.connection);
        match &line.action {
            Action::Begin => unreachable!("handled above"),
            Action::Command { words, compare } => {
                wire.send(words);
                show(wire.read(), *compare)
            }
            Action::Send(words) => {
                wire.send(words);
                settle(port, words);
                String::new()
            }
            Action::Read => show(wire.read(), Compare::Bytes),
            Action::Until { reply, words } => {
                wait::blocking(Duration::from_secs(10), &line.text, || {
                    wire.send(words);
                    (show(wire.read(), Compare::Bytes) == *reply).then_some(())
                });
                reply.clone()
            }
            Action::Raw(bytes) => {
                wire.send_raw(bytes);
                show(wire.read(), Compare::Bytes)
            }
            Action::Eof => format!("closed: {}", wire.is_closed()),
        }
    }
}

/// A server notices later that the connections of the section before are closed; what they subscribed to would count until then.
fn alone(port: u16, wire: &mut Wire) {
    wait::blocking(Duration::from_secs(10), &format!("no other client is left on port {port}"), || {
        let clients = wire.command(&["CLIENT", "LIST"]).body;
        (String::from_utf8_lossy(&clients).lines().filter(|line| line.contains("id=")).count() == 1).then_some(())
    });
}

fn show(reply: std::io::Result<Frame>, compare: Compare) -> String {
    match (reply, compare) {
        (Err(error), _) => format!("no reply: {:?}", error.kind()),
        (Ok(frame), Compare::Bytes | Compare::Near) => frame.show(),
        (Ok(frame), Compare::Unordered) => frame.sorted().show(),
        (Ok(frame), Compare::Shape) => frame.shape(),
    }
}

/// Remaining seconds may differ by a moment; everything else must be equal.
fn is_same(line: &Line, wanted: &str, got: &str) -> bool {
    let seconds = |text: &str| text.strip_prefix(':')?.parse::<i64>().ok().filter(|seconds| *seconds > 2);
    match (&line.action, seconds(wanted), seconds(got)) {
        (Action::Command { compare: Compare::Near, .. }, Some(wanted), Some(got)) => (wanted - got).abs() <= 2,
        _ => wanted == got,
    }
}

/// A blocking command must have arrived before the next line is played.
fn settle(port: u16, words: &[Vec<u8>]) {
    if !words[0].starts_with(b"B") {
        return;
    }
    let mut observer = Wire::connect(port);
    wait::blocking(Duration::from_secs(10), "the client is blocked", || {
        let clients = observer.command(&["CLIENT", "LIST"]).body;
        let clients = String::from_utf8_lossy(&clients).into_owned();
        let command = String::from_utf8_lossy(&words[0]).to_lowercase();
        let waits = |client: &str| client.contains("flags=b") && client.contains(&format!("cmd={command}"));
        clients.lines().any(waits).then_some(())
    });
}

fn replay(name: &str) {
    let text = fs::read_to_string(root().join("tests/vectors/resp").join(name)).expect("the log exists");
    let lines = log::parse(&text);
    let real = Redis::start(RedisOptions::default());
    let ours = BuiltIn::start();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let (mut real, mut ours) = (Session::new(real.port, protocol), Session::new(ours.port, protocol));
        let mut differences = Vec::new();
        for line in &lines {
            let (wanted, got) = (real.play(line), ours.play(line));
            if !is_same(line, &wanted, &got) {
                differences.push(format!("{name}:{} {}\n  redis: {wanted}\n  ours:  {got}", line.number, line.text));
            }
        }
        let count = differences.len();
        assert!(count == 0, "{count} of {} lines differ in {protocol:?}\n{}", lines.len(), differences.join("\n"));
    }
}

macro_rules! replays {
    ($($test:ident: $file:literal;)*) => {
        $(#[test]
        fn $test() {
            replay($file);
        })*
    };
}

replays! {
    strings_answer_as_in_redis: "strings.txt";
    keys_answer_as_in_redis: "keys.txt";
    lists_answer_as_in_redis: "lists.txt";
    hashes_answer_as_in_redis: "hashes.txt";
    sets_answer_as_in_redis: "sets.txt";
    sorted_sets_answer_as_in_redis: "zsets.txt";
    subscribers_hear_what_redis_would_say: "pubsub.txt";
    transactions_answer_as_in_redis: "transactions.txt";
    blocked_clients_are_served_as_in_redis: "blocking.txt";
    scripts_answer_as_in_redis: "scripts.txt";
    the_server_and_its_errors_answer_as_in_redis: "server.txt";
    what_celery_5_7_said_is_answered_as_in_redis: "celery-5.7.txt";
    what_celery_5_4_said_is_answered_as_in_redis: "celery-5.4.txt";
}
