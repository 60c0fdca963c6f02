//! The commands of Python clients give the same answers on both servers, and the documentation lists the supported commands.

use std::collections::BTreeSet;
use std::process::Command;

use crate::harness::celery::root;
use crate::harness::{Redis, RedisOptions, Version};

use super::built_in::BuiltIn;
use super::wire::Wire;

/// What `redis_py.py` prints of a server.
fn asked_by_python(port: u16, protocol: u8) -> Vec<String> {
    let mut command = Command::new(Version::Latest.python());
    command.arg(root().join("tests/it/resp/redis_py.py")).args(["127.0.0.1", &port.to_string(), &protocol.to_string()]);
    let done = command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("run tests/setup.sh first");
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{told}\n{}", String::from_utf8_lossy(&done.stderr));
    told.lines().map(str::to_owned).collect()
}

fn python_is_answered_alike(protocol: u8) {
    let (real, ours) = (Redis::start(RedisOptions::default()), BuiltIn::start());
    let wanted = asked_by_python(real.port, protocol);
    let got = asked_by_python(ours.port, protocol);
    assert!(wanted.len() > 100, "{wanted:#?}");
    let differ: Vec<String> =
        wanted.iter().zip(&got).filter(|(a, b)| a != b).map(|(a, b)| format!("redis: {a}\nours:  {b}")).collect();
    assert!(differ.is_empty() && wanted.len() == got.len(), "{} differ\n{}", differ.len(), differ.join("\n"));
}

#[test]
fn redis_py_kombu_locks_redbeat_and_celery_once_are_answered_as_by_redis() {
    python_is_answered_alike(2);
}

#[test]
fn and_so_they_are_in_resp3() {
    python_is_answered_alike(3);
}

/// The first line of the reply to a command with two words behind it.
fn reply(port: u16, name: &str) -> String {
    let mut wire = Wire::connect(port);
    wire.send(&[name, "a", "b"].map(|word| word.as_bytes().to_vec()));
    wire.read().map_or_else(|error| format!("{:?}", error.kind()), |frame| frame.show())
}

#[test]
fn every_other_command_gets_redis_s_own_refusal_and_the_book_says_which_there_are() {
    let (real, ours) = (Redis::start(RedisOptions::default()), BuiltIn::start());
    let names: Vec<String> = real.command(0, &["COMMAND", "LIST"]);
    let names: BTreeSet<String> = names.into_iter().filter(|name| !name.contains('|')).collect();
    let refusal = reply(real.port, "nosuch");
    assert!(refusal.contains("unknown command"), "{refusal}");
    let (mut there, mut absent) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        let answer = reply(ours.port, &name);
        if answer.contains("unknown command") {
            assert_eq!(answer, refusal.replace("nosuch", &name), "{name}");
            absent.insert(name.to_uppercase());
        } else {
            there.insert(name.to_uppercase());
        }
    }
    let page = std::fs::read_to_string(root().join("docs/dev-redis.md")).expect("the page is there");
    let (has, has_not) = page.split_once("| it has not |").expect("two tables");
    let named = |text: &str, name: &str| text.contains(&format!("`{name}`"));
    let untold: Vec<&String> = there.iter().filter(|name| !named(has, name)).collect();
    let wrong: Vec<&String> = absent.iter().filter(|name| named(has, name)).collect();
    let told_absent: Vec<&String> = there.iter().filter(|name| named(has_not, name)).collect();
    assert!(untold.is_empty() && wrong.is_empty(), "docs/dev-redis.md lacks {untold:?} and wrongly has {wrong:?}");
    assert!(told_absent.is_empty(), "docs/dev-redis.md says that these are not there: {told_absent:?}");
}
