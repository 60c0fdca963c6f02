//! Processes that fork Celery workers, one for each environment of Python: Celery is imported once, not for every worker. What runs is
//! Celery's own command line all the same (`tests/celery_app/nursery.py`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::json;

use super::{celery, process};

/// By Python interpreter.
static ALL: LazyLock<Mutex<BTreeMap<PathBuf, Nursery>>> = LazyLock::new(Mutex::default);

struct Nursery {
    _process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Forks a worker for this command, which is `python -m celery` and its words; the id of its process. It leads a process group.
pub fn fork(command: &Command, log: &Path, status: &Path) -> i32 {
    let python = Path::new(command.get_program());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let nursery = all.entry(python.to_owned()).or_insert_with(|| Nursery::start(python));
    let mut environment: BTreeMap<String, String> = std::env::vars().collect();
    let text = |text: &OsStr| text.to_str().expect("what the tests write is UTF-8").to_owned();
    environment.extend(command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))));
    let words: Vec<String> = command.get_args().skip(2).map(text).collect();
    let folder = command.get_current_dir().expect("a worker's command has a folder");
    let request = json!({"words": words, "environment": environment, "folder": folder, "log": log, "status": status});
    writeln!(nursery.requests, "{request}").expect("the nursery reads");
    let mut answer = String::new();
    nursery.answers.read_line(&mut answer).expect("the nursery answers");
    answer.trim().parse().unwrap_or_else(|_| panic!("no process id: {answer:?}"))
}

impl Nursery {
    fn start(python: &Path) -> Self {
        let mut command = Command::new(python);
        command
            .arg("nursery.py")
            .current_dir(celery::root().join("tests/celery_app"))
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = process::spawn_in_group(command).expect("run tests/setup.sh first");
        let requests = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { _process: child, requests, answers }
    }
}
