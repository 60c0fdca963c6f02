//! `taskgate top` on a terminal of its own.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::environment::Harness;
use crate::harness::gateway::run;
use crate::harness::wait;

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_seen_on_a_terminal_and_q_gives_it_back() {
    let env = Harness::shared();
    // Enough to stand at the top, whatever other tests leave behind.
    let signature = json!({"task": "demo.add", "args": [1, 2], "queue": "seen-in-top"});
    env.http.post("/v1/tasks/batch", &json!(vec![signature; 200])).await.expect(202);
    let address = format!("http://127.0.0.1:{}", env.gateway.port);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = folder.path().join("screen");
    let command = format!("stty rows 40 cols 140; exec {} top --url {address} -i 1", env!("CARGO_BIN_EXE_taskgate"));
    // util-linux's `script` runs it on a terminal and passes keys on.
    let mut terminal = Command::new("script")
        .args(["-qfec", &command])
        .arg(&written)
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("util-linux is installed");
    let seen = || std::fs::read(&written).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    wait::blocking(Duration::from_secs(60), "the screen shows the queue", || {
        let screen = seen();
        (screen.contains("seen-in-top") && screen.contains("slots at work") && screen.contains("q quit")).then_some(())
    });
    let mut keys = terminal.stdin.take().expect("it is piped");
    keys.write_all(b"\t\x1b[Bjq").expect("it reads keys");
    keys.flush().expect("it reads keys");
    let status = terminal.wait().expect("the child is ours");
    assert_eq!(status.code(), Some(0), "{}", seen());
    // The screen that was there before is back.
    assert!(seen().contains("\u{1b}[?1049l"), "{}", seen());
}

#[tokio::test]
async fn without_a_terminal_it_says_what_to_use() {
    let env = Harness::shared();
    let done = run(&["top", "--url", &format!("http://127.0.0.1:{}", env.gateway.port)], &[]);
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(64) && told.contains("needs a terminal"), "{told}");
}
