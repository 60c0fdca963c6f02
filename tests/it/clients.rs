//! Runs the tests of the clients for other languages against a gateway with real Celery workers of both versions.

use std::path::Path;
use std::process::Command;

use crate::clients_contract::{environment, node, succeeds, with_path};
use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Version, celery};

/// `map`, `starmap` and `chunks` are tasks of Celery's own.
const ALLOWED: &str = "submit.allow = ['demo.*', 'tasks.*', 'celery.*']";

#[tokio::test]
async fn the_python_client_passes_its_tests_beside_the_newest_celery() {
    beside_celery(Version::Latest, &["tests"]).await;
}

#[tokio::test]
async fn the_python_client_passes_its_tests_beside_celery_5_4() {
    beside_celery(Version::Older, &["tests", "--ignore=tests/test_package.py"]).await;
}

/// They start a gateway and a worker of their own. Django 6 needs Python 3.12, which `tests/setup.sh` looks for; Django 5 with the
/// package django-tasks, which has the same interface, runs everywhere.
#[tokio::test]
async fn the_django_backend_passes_its_tests() {
    passes(pytest(&environment("django").join("bin/python"), &["tests_django"])).await;
    let newer = environment("django6").join("bin/python");
    if newer.exists() {
        passes(pytest(&newer, &["tests_django"])).await;
    }
}

/// `via`: calls are part of a transaction of SQLAlchemy, Django or psycopg in the ledger's own database.
#[tokio::test]
async fn the_python_client_submits_inside_of_the_callers_transaction() {
    let env = Harness::start(&Options { config: ALLOWED.to_owned(), ..Options::default() });
    let mut command = pytest(&environment("transactions").join("bin/python"), &["tests_transactions"]);
    command
        .env("TASKGATE_TEST_URL", format!("http://127.0.0.1:{}", env.gateway.port))
        .env("TASKGATE_TEST_DATABASE", &env.database)
        .env("CELERY_BROKER_URL", env.redis.url(0))
        .env("CELERY_RESULT_BACKEND", env.redis.url(1));
    passes(command).await;
}

#[tokio::test]
async fn the_typescript_client_passes_its_tests() {
    let env = Harness::start(&Options::default());
    let folder = celery::root().join("clients/typescript");
    succeeds(node("typescript", "tsc").arg("-p").arg(&folder));
    let mut command = Command::new("node");
    command
        .args(["--test", "test/"])
        .current_dir(folder)
        .env("PATH", with_path(environment("node").join("bin")))
        .env("TASKGATE_TEST_URL", format!("http://127.0.0.1:{}", env.gateway.port));
    passes(command).await;
}

/// Runs the client's tests with this version of Celery.
async fn beside_celery(version: Version, arguments: &[&str]) {
    let celery = CeleryOptions { version, concurrency: 4, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, config: ALLOWED.to_owned(), ..Options::default() });
    let mut command = pytest(&version.python(), arguments);
    command
        .env("TASKGATE_TEST_URL", format!("http://127.0.0.1:{}", env.gateway.port))
        .env("CELERY_BROKER_URL", env.redis.url(0))
        .env("CELERY_RESULT_BACKEND", env.redis.url(1));
    passes(command).await;
}

/// The client from its source folder; what the tests need besides comes from the environment `clients`, last.
fn pytest(python: &Path, arguments: &[&str]) -> Command {
    let folder = celery::root().join("clients/python");
    let mut path = vec![folder.join("src")];
    let alone = ["django", "django6", "transactions"];
    if !alone.iter().any(|name| python.starts_with(environment(name))) {
        let lib = std::fs::read_dir(environment("clients").join("lib")).expect("run tests/setup.sh first");
        path.extend(lib.flatten().map(|version| version.path().join("site-packages")));
    }
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-q"])
        .args(arguments)
        .current_dir(folder)
        .env("PYTHONPATH", std::env::join_paths(path).expect("no path here has a colon"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TASKGATE_TEST_BINARY", env!("CARGO_BIN_EXE_taskgate"))
        .env("C_FORCE_ROOT", "1")
        .env_remove("TASKGATE_URL")
        .env_remove("TASKGATE_TOKEN");
    command
}

async fn passes(mut command: Command) {
    let done = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    let done = done.expect("run tests/setup.sh first");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}
