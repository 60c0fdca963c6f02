//! Clients that send garbage, read nothing, hang up at the wrong moment, or run scripts for ever.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Stopwatch, wait};

use super::built_in::BuiltIn;
use super::wire::Wire;

const PATIENCE: Duration = Duration::from_secs(10);

/// The server still answers, and soon.
fn assert_alive(server: &BuiltIn) {
    assert_eq!(Wire::connect(server.port).command(&["PING"]).show(), "+PONG");
}

/// Sends everything, hangs up the sending half, and reads to the end: the server must end the conversation too.
fn talk(port: u16, bytes: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
    let _ = stream.write_all(bytes); // the server may have hung up already
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{bytes:?} hangs: {error}"),
    }
}

fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&strategy, test).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn random_bytes_neither_break_nor_hang_a_connection() {
    let mut server = BuiltIn::start();
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..400),
        proptest::collection::vec(prop::sample::select(b"*$1:\r\n\"'\\x09-+ PINGSET".to_vec()), 0..200),
    ];
    run(300, bytes, |bytes| {
        talk(server.port, &bytes);
        Ok(())
    });
    assert_alive(&server);
    server.stop();
}

/// Arguments that commands parse, so that random commands pass the first check.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "k1",
        "k2",
        "0",
        "1",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "1.5",
        "inf",
        "-inf",
        "nan",
        "(1",
        "[a",
        "-",
        "+",
        "*",
        "[",
        "EX",
        "PX",
        "NX",
        "XX",
        "GT",
        "LT",
        "GET",
        "COUNT",
        "MATCH",
        "LIMIT",
        "WITHSCORES",
        "BYSCORE",
        "BYLEX",
        "REV",
        "LEFT",
        "RIGHT",
        "BEFORE",
        "RANK",
        "MAXLEN",
        "",
        "return redis.call(unpack(ARGV))",
        "return cjson.decode(ARGV[1])",
        "CHANNELS",
        "LOAD",
        "SETNAME",
        "REPLY",
        "OFF",
        "ON",
        "TYPE",
        "ENCODING",
        "USAGE",
        "3",
        "AUTH",
        "0.01",
    ];
    prop_oneof![
        8 => prop::sample::select(known.map(|word| word.as_bytes().to_vec()).to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

#[test]
fn random_commands_neither_break_nor_hang_a_connection() {
    let mut server = BuiltIn::start();
    let names = Wire::connect(server.port).command(&["COMMAND", "LIST"]);
    let names: Vec<Vec<u8>> = names.items.iter().map(|name| name.body[..name.body.len() - 2].to_vec()).collect();
    assert!(names.len() > 100, "{} commands", names.len());
    let command = (prop::sample::select(names), proptest::collection::vec(word(), 0..8));
    let commands = proptest::collection::vec(command, 1..40);
    run(200, commands, |commands| {
        let mut bytes = Vec::new();
        for (name, words) in commands {
            bytes.extend_from_slice(format!("*{}\r\n", words.len() + 1).as_bytes());
            for word in std::iter::once(&name).chain(&words) {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        talk(server.port, &bytes);
        Ok(())
    });
    assert_alive(&server);
    server.stop();
}

#[test]
fn a_script_that_never_ends_is_ended() {
    let scripts = [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local c = coroutine.wrap(function() while true do end end) while true do pcall(c) end",
    ];
    std::thread::scope(|threads| {
        for script in scripts {
            threads.spawn(move || ends(script));
        }
    });
}

fn ends(script: &str) {
    let server = BuiltIn::start();
    let mut wire = Wire::connect(server.port);
    let reply = wire.command(&["EVAL", script, "0"]).show();
    assert!(reply.starts_with("-BUSY"), "{script}: {reply}");
    assert_eq!(wire.command(&["EVAL", "return 1", "0"]).show(), ":1");
}

#[test]
fn a_script_cannot_take_all_memory() {
    let server = BuiltIn::start();
    let mut wire = Wire::connect(server.port);
    let reply = wire.command(&["EVAL", "return #string.rep('x', 1e9)", "0"]).show();
    assert!(reply.contains("memory"), "{reply}");
    let reply =
        wire.command(&["EVAL", "local t = {} while true do t[#t + 1] = string.rep('x', 1e6) .. #t end", "0"]).show();
    assert!(reply.contains("memory"), "{reply}");
    assert_eq!(wire.command(&["EVAL", "return 1", "0"]).show(), ":1");
}

#[test]
fn a_reader_that_stops_reading_is_cut_off_and_others_are_not() {
    let server = BuiltIn::start();
    let mut slow = Wire::connect(server.port);
    slow.command(&["SUBSCRIBE", "news"]);
    let mut publisher = Wire::connect(server.port);
    let payload = "x".repeat(1024 * 1024);
    wait::blocking(PATIENCE, "the slow reader is cut off", || {
        (publisher.command(&["PUBLISH", "news", &payload]).show() == ":0").then_some(())
    });
    assert_alive(&server);
}

#[test]
fn a_long_pipeline_may_be_sent_before_the_first_answer_is_read() {
    let server = BuiltIn::start();
    let mut wire = Wire::connect(server.port);
    let payload = vec![b'x'; 64 * 1024];
    let count = 600; // ten times what sockets buffer, in both directions
    for _ in 0..count {
        wire.send(&[b"ECHO".to_vec(), payload.clone()]);
    }
    for _ in 0..count {
        assert_eq!(wire.read().expect("an answer").body.len(), payload.len() + 2);
    }
}

#[test]
fn who_hangs_up_while_waiting_gets_nothing() {
    let server = BuiltIn::start();
    let mut gone = Wire::connect(server.port);
    gone.send(&[b"BLPOP".to_vec(), b"queue".to_vec(), b"0".to_vec()]);
    let mut wire = Wire::connect(server.port);
    let blocked = |wire: &mut Wire, wanted: &str| {
        let info = wire.command(&["INFO", "clients"]).body;
        String::from_utf8_lossy(&info).contains(&format!("blocked_clients:{wanted}\r\n")).then_some(())
    };
    wait::blocking(PATIENCE, "the client waits", || blocked(&mut wire, "1"));
    drop(gone);
    wait::blocking(PATIENCE, "the client is forgotten", || blocked(&mut wire, "0"));
    assert_eq!(wire.command(&["RPUSH", "queue", "item"]).show(), ":1");
    assert_eq!(wire.command(&["LLEN", "queue"]).show(), ":1");
}

#[test]
fn a_value_of_many_megabytes_comes_back_whole() {
    let server = BuiltIn::start();
    let mut wire = Wire::connect(server.port);
    let big = vec![b'z'; 48 * 1024 * 1024];
    wire.send(&[b"SET".to_vec(), b"big".to_vec(), big.clone()]);
    assert_eq!(wire.read().expect("an answer").show(), "+OK");
    let back = wire.command(&["GET", "big"]);
    assert!(back.body.len() == big.len() + 2 && back.body.starts_with(&big));
}

#[test]
fn stopping_closes_clients_within_a_second() {
    let mut server = BuiltIn::start();
    let mut idle = Wire::connect(server.port);
    idle.command(&["PING"]);
    let mut blocked = Wire::connect(server.port);
    blocked.send(&[b"BLPOP".to_vec(), b"queue".to_vec(), b"0".to_vec()]);
    let began = Stopwatch::start();
    server.stop();
    assert!(idle.is_closed() && blocked.is_closed());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn stopping_does_not_wait_for_a_script() {
    let mut server = BuiltIn::start();
    let mut wire = Wire::connect(server.port);
    wire.send(&[b"EVAL".to_vec(), b"while true do end".to_vec(), b"0".to_vec()]);
    wait::blocking(PATIENCE, "the script runs", || {
        let mut other = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
        other.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket has timeouts");
        other.write_all(b"PING\r\n").expect("the kernel takes it");
        other.read(&mut [0; 1]).is_err().then_some(())
    });
    let began = Stopwatch::start();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
