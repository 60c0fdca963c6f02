//! `taskgate top` in a pseudo-terminal, and where there is no terminal. What exactly it draws is tested beside the code, on a terminal
//! in memory.

use std::process::Command;

use serde_json::json;

use crate::harness::celery::Version;
use crate::harness::environment::Harness;
use crate::harness::gateway::run;

/// Runs the command that follows in a terminal of 120 columns; prints what it drew before and after each key, and how it ended.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, struct, sys, termios, time
child, screen = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm-256color"
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
end = time.monotonic() + 60

def read_until(text, drawn):
    while text not in drawn and time.monotonic() < end:
        if not select.select([screen], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(screen, 65536)
        except OSError:
            break
        if not piece:
            break
        drawn += piece
    return drawn

drawn = b""
for word in (b"Queues", b"Workers", b"nobody"):
    drawn = read_until(word, drawn)
os.write(screen, b"2j")
os.write(screen, b"q")
drawn = read_until(b"\x1b[?1049l", drawn)
if b"\x1b[?1049l" not in drawn:
    os.kill(child, 9)
status = os.waitpid(child, 0)[1]
sys.stdout.write(drawn.decode(errors="replace"))
sys.stdout.write("\nended with %d\n" % os.waitstatus_to_exitcode(status))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_terminal_it_draws_the_fleet_and_leaves_on_q() {
    let env = Harness::shared();
    env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "queue": "nobody"})).await;
    let url = format!("http://127.0.0.1:{}", env.gateway.port);
    let done = tokio::task::spawn_blocking(move || {
        let program = env!("CARGO_BIN_EXE_taskgate");
        Command::new(Version::Latest.python()).args(["-c", TERMINAL, program, "top", "--url", &url]).output()
    })
    .await
    .expect("it ends")
    .expect("run tests/setup.sh first");
    let drawn = String::from_utf8_lossy(&done.stdout).into_owned();
    for text in ["Queues", "Workers", "nobody", "\u{1b}[?1049l"] {
        assert!(drawn.contains(text), "{text:?} is missing in {drawn:?} {}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(drawn.trim_end().ends_with("ended with 0"), "{drawn:?}");
}

#[tokio::test]
async fn without_a_terminal_it_says_what_to_use() {
    let env = Harness::shared();
    let done = run(&["top", "--url", &format!("http://127.0.0.1:{}", env.gateway.port)], &[]);
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(64) && told.contains("needs a terminal"), "{told}");
}
