//! `taskgate top` where there is no terminal. What it draws is tested beside the code, on a terminal in memory.

use crate::harness::environment::Harness;
use crate::harness::gateway::run;

#[tokio::test]
async fn without_a_terminal_it_says_what_to_use() {
    let env = Harness::shared();
    let done = run(&["top", "--url", &format!("http://127.0.0.1:{}", env.gateway.port)], &[]);
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(64) && told.contains("needs a terminal"), "{told}");
}
