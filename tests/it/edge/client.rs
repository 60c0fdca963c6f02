//! The command-line client, run in a terminal and by a script.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::environment::Harness;
use crate::harness::gateway::{run, run_on_terminal};
use crate::harness::terminal::Screen;
use crate::harness::{eventually, ports};

pub(super) struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub error: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the client writes UTF-8").trim_end().to_owned();
        Self { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
    }

    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{:?} {:?}", self.out, self.error);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {}", self.out))
    }
}

pub(super) fn ask(url: &str, words: &[&str]) -> Said {
    Said::of(run(words, &[("TASKGATE_URL", url)]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_submitted_and_its_end_is_the_exit_code() {
    let env = Harness::shared();
    let ask = |words: &[&str]| ask(&env.http.base, words);
    let id = ask(&["submit", "demo.add", "2", "-3"]).with(0).out;
    assert_eq!(ask(&["result", &id, "--wait"]).with(0).out, "-1");
    assert_eq!(ask(&["result", &id]).with(0).out, "-1");
    let whole = ask(&["result", &id, "--json"]).with(0).json();
    assert_eq!((&whole["task_id"], &whole["status"], &whole["result"]), (&json!(id), &json!("SUCCESS"), &json!(-1)));
    // Numbers with many digits, texts that are not JSON, keyword arguments, labels.
    let echoed = ask(&["submit", "demo.echo", "12345678901234567890", "two words", "-k", "n=[1]", "--wait"]).with(0);
    assert!(echoed.out.contains("12345678901234567890") && echoed.out.contains("\"two words\""), "{}", echoed.out);
    let failed = ask(&["submit", "demo.fail", "KeyError", "boom", "--wait", "--label", "who=me"]).with(1);
    assert!(failed.out.is_empty() && failed.error.starts_with("FAILURE: KeyError:"), "{}", failed.error);
    assert!(failed.error.contains("Traceback"), "{}", failed.error);
    let listed = ask(&["tasks", "--label", "who:me", "--json"]).with(0).json();
    assert_eq!(listed["tasks"][0]["task"], "demo.fail", "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_line_by_line_where_no_terminal_is() {
    let env = Harness::shared();
    let ask = |words: &[&str]| ask(&env.http.base, words);
    let watched = ask(&["submit", "demo.progress", "3", "--watch"]).with(0);
    assert!(watched.error.lines().any(|line| line.starts_with("PROGRESS ")), "{}", watched.error);
    assert!(!watched.out.is_empty());
    let id = ask(&["submit", "demo.progress", "3"]).with(0).out;
    let events = ask(&["watch", &id, "--json"]).with(0).out;
    let lines: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let last = lines.last().expect("an end");
    assert_eq!((&last["task_id"], &last["status"]), (&json!(id), &json!("SUCCESS")), "{events}");
    // Watching a finished task shows its end at once; a group can be followed too.
    assert_eq!(ask(&["watch", &id]).with(0).json(), last["result"]);
    let file = env.gateway.directory().join("group.json");
    let members = json!({"group": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}]});
    std::fs::write(&file, members.to_string()).expect("the folder is ours");
    let group = ask(&["submit", "--file", file.to_str().expect("a text"), "--watch", "--json"]).with(0).out;
    let end: Value = serde_json::from_str(group.lines().last().expect("an end")).expect("JSON");
    assert_eq!(end["result"], json!([2, 4]), "{end}");
}

/// The filled part of a bar in `━━━── 60 % PROGRESS 3/5: step 3`, and the text after it.
fn bar(line: &str) -> Option<(f64, u32, &str)> {
    let (bar, rest) = line.split_once(' ')?;
    let (percent, words) = rest.split_once(" % ")?;
    let done = bar.chars().filter(|char| *char == '━').count();
    let whole = bar.chars().filter(|char| "━─".contains(*char)).count();
    assert!(whole == bar.chars().count() && whole > 9, "{line:?}");
    Some((done as f64 / whole as f64, percent.trim().parse().ok()?, words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_a_bar_where_a_terminal_is() {
    const COLUMNS: u16 = 60;
    let env = Harness::shared();
    let on_terminal = |columns, words: &[&str]| {
        let (code, written) = run_on_terminal(words, &[("TASKGATE_URL", &env.http.base)], columns);
        (code, Screen::after(&written))
    };
    let (code, screen) = on_terminal(COLUMNS, &["submit", "demo.progress", "5", "0.4", "--watch"]);
    assert_eq!(code, Some(0), "{}", screen.text());
    let (id, result) =
        screen.text().split_once('\n').map(|(id, result)| (id.to_owned(), result.to_owned())).expect("two lines");
    assert_eq!((id.len(), result.as_str()), (36, "{\"steps\": 5}"), "{:?}", screen.seen);
    let bars: Vec<_> = screen.seen.iter().filter_map(|line| bar(line)).collect();
    assert!(bars.iter().any(|bar| bar.1 == 100) && bars.iter().any(|bar| bar.1 < 100), "{:?}", screen.seen);
    assert!(bars.is_sorted_by_key(|bar| bar.1), "{:?}", screen.seen);
    let (mut before, mut fitting) = (None, 0);
    for (done, percent, words) in bars {
        assert!((done - f64::from(percent) / 100.0).abs() < 0.05, "{:?}", screen.seen);
        let fits = words == format!("PROGRESS {0}/5: step {0}", percent / 20);
        // The bar may be drawn before its text changes.
        assert!(fits || before.is_none_or(|before| before == words), "{:?}", screen.seen);
        fitting += usize::from(fits);
        before = Some(words);
    }
    assert!(fitting > 0, "{:?}", screen.seen);
    // A task's text is cut at the end of the line, and its control characters are not obeyed; the error follows below.
    let evil = json!({"current": 1, "total": 2, "message": format!("\u{1b}[2J\n{}", "wide ".repeat(30))});
    let (_, screen) = on_terminal(COLUMNS, &["submit", "demo.custom_state", "CRAWLING", &evil.to_string(), "--watch"]);
    let widest = screen.seen.iter().map(|line| line.chars().count()).max();
    assert!(widest <= Some(usize::from(COLUMNS)), "{:?}", screen.seen);
    let (code, screen) = on_terminal(COLUMNS, &["submit", "demo.fail", "ValueError", "\u{1b}[2Jboom", "--watch"]);
    assert_eq!(code, Some(1));
    assert!(screen.text().contains("\nFAILURE: ValueError: ?[2Jboom\nTraceback"), "{}", screen.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_unfinished_until_it_is_revoked() {
    let env = Harness::shared();
    let ask = |words: &[&str]| ask(&env.http.base, words);
    let id = ask(&["submit", "demo.add", "1", "1", "--countdown", "600"]).with(0).out;
    let pending = ask(&["result", &id]).with(3);
    assert!(pending.out.is_empty() && pending.error.contains("PENDING"), "{}", pending.error);
    let revoked = ask(&["revoke", &id, "--reason", "not needed"]).with(0);
    assert!(revoked.out.starts_with("prevented:"), "{}", revoked.out);
    assert_eq!(ask(&["revoke", &id, "--json"]).with(1).json()["verdict"], "too_late");
    assert!(ask(&["result", &id]).with(1).error.starts_with("REVOKED"));
    let table = ask(&["tasks", "-q", &id]).with(0).out;
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 2 && rows[0].starts_with("ID") && rows[1].contains("revoked"), "{table}");
    eventually("the worker is listed", async || {
        let workers = ask(&["workers"]).with(0).out;
        workers.lines().any(|line| line.contains("online") && line.contains("celery")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timetable_is_listed_and_changed() {
    let env = Harness::shared();
    let ask = |words: &[&str]| ask(&env.http.base, words);
    let schedule = json!({"name": "cli-nightly", "task": "demo.add", "args": [1, 2], "cron": "0 3 1 1 *"});
    env.http.post("/v1/schedules", &schedule).await.expect(201);
    let row = |table: &str| table.lines().find(|line| line.starts_with("cli-nightly")).map(str::to_owned);
    let listed = row(&ask(&["schedules"]).with(0).out).expect("a line");
    assert!(listed.contains("demo.add") && listed.contains("cron 0 3 1 1 *") && listed.contains("active"), "{listed}");
    ask(&["schedules", "pause", "cli-nightly"]).with(0);
    assert!(row(&ask(&["schedules"]).with(0).out).expect("a line").contains("paused"));
    ask(&["schedules", "resume", "cli-nightly"]).with(0);
    let id = ask(&["schedules", "run", "cli-nightly"]).with(0).out;
    assert_eq!(ask(&["result", &id, "--wait"]).with(0).out, "3");
    assert!(ask(&["schedules", "--json"]).with(0).json()["schedules"].is_array());
    let unknown = ask(&["schedules", "run", "nobody"]).with(1);
    assert!(unknown.error.contains("There is no schedule of this name"), "{}", unknown.error);
    env.http.send(reqwest::Method::DELETE, "/v1/schedules/cli-nightly", &[], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_why_and_absence_has_its_own_code() {
    let env = Harness::shared();
    let refused = ask(&env.http.base, &["submit", "demo.add", "--priority", "77"]).with(1);
    assert!(refused.error.contains("/priority: "), "{}", refused.error);
    let unknown = ask(&env.http.base, &["watch", "01890000-0000-7000-8000-00000000dead"]).with(1);
    assert!(unknown.error.contains("never saw"), "{}", unknown.error);
    let nobody = format!("http://127.0.0.1:{}", ports::free());
    for words in [&["submit", "demo.add", "1", "2"][..], &["result", "x"], &["watch", "x"], &["workers"], &["tasks"]] {
        let absent = ask(&nobody, words).with(2);
        assert!(absent.error.contains("does not answer") && absent.out.is_empty(), "{}", absent.error);
    }
    assert!(ask("gate.example", &["tasks"]).with(64).error.contains("not an address"));
    ask(&nobody, &["tasks", "--no-such-flag"]).with(64);
    for shell in ["bash", "zsh", "fish"] {
        let script = ask(&nobody, &["completions", shell]).with(0).out;
        assert!(script.contains("revoke") && script.contains("schedules"), "{shell}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_sent_and_a_missing_one_is_said() {
    let guarded = super::Guarded::shared();
    let base = guarded.gateways[0].http().base;
    assert!(ask(&base, &["tasks"]).with(1).error.contains("A token is needed"));
    let token = guarded.token(&["--name", "cli", "--scope", "read"]);
    let listed = Said::of(run(&["tasks", "--json"], &[("TASKGATE_URL", &base), ("TASKGATE_TOKEN", &token)])).with(0);
    assert!(listed.json()["tasks"].is_array());
    let refused = Said::of(run(&["submit", "demo.add", "--token", &token], &[("TASKGATE_URL", &base)])).with(1);
    assert!(refused.error.contains("submit"), "{}", refused.error);
}
