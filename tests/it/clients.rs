//! The clients for other languages, each by its own tests, against a gateway with real Celery workers of both versions.

use std::process::Command;

use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, Version, celery};

/// `map`, `starmap` and `chunks` are tasks of Celery's own.
const ALLOWED: &str = "submit.allow = ['demo.*', 'tasks.*', 'celery.*']";

#[tokio::test]
async fn the_python_client_passes_its_tests_beside_the_newest_celery() {
    python_tests(Version::Latest, &[]).await;
}

#[tokio::test]
async fn the_python_client_passes_its_tests_beside_celery_5_4() {
    python_tests(Version::Older, &["--ignore=tests/test_package.py"]).await;
}

/// Runs `clients/python/tests` as somebody with this Celery would.
async fn python_tests(version: Version, arguments: &[&str]) {
    let celery = CeleryOptions { version, concurrency: 4, ..CeleryOptions::default() };
    let env = Harness::start(&Options { celery, config: ALLOWED.to_owned(), ..Options::default() });
    let root = celery::root();
    let folder = root.join("clients/python");
    let installed = std::fs::read_dir(root.join(".venv/clients/lib")).expect("run tests/setup.sh first");
    let installed = installed.flatten().next().expect("an environment has a lib folder").path().join("site-packages");
    let path = std::env::join_paths([folder.join("src"), installed]).expect("no path here has a colon");
    let mut command = Command::new(version.python());
    command.args(["-m", "pytest", "-q"]).args(arguments).current_dir(folder);
    command
        .env("PYTHONPATH", path)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TASKGATE_TEST_URL", format!("http://127.0.0.1:{}", env.gateway.port))
        .env("TASKGATE_TEST_BINARY", env!("CARGO_BIN_EXE_taskgate"))
        .env("CELERY_BROKER_URL", env.redis.url(0))
        .env("CELERY_RESULT_BACKEND", env.redis.url(1))
        .env("C_FORCE_ROOT", "1")
        .env_remove("TASKGATE_URL")
        .env_remove("TASKGATE_TOKEN");
    let done = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    let done = done.expect("run tests/setup.sh first");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}
