//! Command tasks: an executable sees nothing of its worker, keeps within its limits, and gets values, never options or paths.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use toml::Table;

use crate::harness::celery::root;
use crate::harness::{Gateway, Http, eventually, ports};

/// `taskgate dev` with `examples/commands` and more entries.
pub struct Commands {
    pub gateway: Gateway,
    pub http: Http,
}

impl Commands {
    pub fn start(more: &str) -> Self {
        Self::with(more, &[])
    }

    pub fn with(more: &str, environment: &[(&str, &str)]) -> Self {
        let example = root().join("examples/commands");
        let text = std::fs::read_to_string(example.join("taskgate.toml")).expect("the example is there");
        let config: Table = (text + more).parse().expect("TOML");
        let port = ports::free();
        let listen = format!("127.0.0.1:{port}");
        let all: Vec<_> = [("TASKGATE_HTTP__LISTEN", listen.as_str())].iter().chain(environment).copied().collect();
        let mut gateway = Gateway::start(&["dev"], port, Some(&config), &all);
        let script = gateway.directory().join("count-words.sh");
        std::fs::copy(example.join("count-words.sh"), &script).expect("the folder is ours");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
        gateway.wait_until_ready();
        let http = gateway.http();
        Self { gateway, http }
    }

    /// Submits a signature and returns the answer with its end.
    pub async fn run(&self, signature: &Value) -> Value {
        self.http.post_with("/v1/tasks", &[("prefer", "wait=60")], signature).await.expect(200)
    }
}

const SHELL: &str = r#"
[[tasks]]
name = "shell"
command = ["sh", "-c"]
process.options = "allow"

[[tasks]]
name = "shell.bounded"
command = ["sh", "-c"]
time_limit = "20s"
process = { options = "allow", memory = "256 MiB", output = "64 KiB", processes = 20 }

[[tasks]]
name = "shell.named"
command = ["sh", "-c"]
process = { options = "allow", environment = { LANG = "C.UTF-8" }, pass = ["GIVEN"] }

[[tasks]]
name = "find"
command = ["find"]

[[tasks]]
name = "tar"
command = ["tar", "-cf", "/dev/null"]
process.options = "separate"

[[tasks]]
name = "curl"
command = ["curl", "--silent"]
args = ["{url}"]
[tasks.body]
type = "object"
required = ["url"]
properties.url = { type = "string" }
"#;

fn shell(task: &str, program: &str) -> Value {
    json!({"task": task, "args": [program]})
}

#[tokio::test]
async fn a_command_sees_nothing_of_its_worker() {
    let secrets = [("DATABASE_PASSWORD", "hunter2"), ("TASKGATE_TOKEN", "tg_x"), ("GIVEN", "it is")];
    let dev = Commands::with(SHELL, &secrets);
    let names = "env | cut -d= -f1 | sort | tr '\\n' ' ' | sed 's/.*/\"&\"/'";
    let seen = dev.run(&shell("shell", names)).await;
    let seen: Vec<&str> =
        seen["result"].as_str().unwrap_or_else(|| panic!("no text: {seen}")).split_whitespace().collect();
    let expected = ["HOME", "PATH", "PWD", "TASKGATE_TASK_ID"];
    assert!(seen.iter().all(|name| expected.contains(name) || *name == "_" || *name == "OLDPWD"), "{seen:?}");
    let named = dev.run(&shell("shell.named", r#"echo "\"$LANG $GIVEN $DATABASE_PASSWORD\"""#)).await;
    assert_eq!(named["result"], "C.UTF-8 it is ", "{named}");
}

#[tokio::test]
async fn a_command_has_a_directory_of_its_own() {
    let dev = Commands::start(SHELL);
    let program = r#"touch left-behind; mkdir -p deep/er; stat -c '%a' . > mode; echo "\"$(cat mode) $PWD\"""#;
    let (first, second) = (dev.run(&shell("shell", program)).await, dev.run(&shell("shell", program)).await);
    let place = |done: &Value| done["result"].as_str().unwrap_or_else(|| panic!("{done}")).to_owned();
    let (first, second) = (place(&first), place(&second));
    assert!(first.starts_with("700 /") && first != second, "{first} {second}");
    for place in [&first[4..], &second[4..]] {
        let is_gone = async || (!std::path::Path::new(place).exists()).then_some(());
        eventually(&format!("{place} is removed"), is_gone).await;
    }
}

/// A message of another client may have any text as its id.
#[tokio::test]
async fn an_id_is_never_a_path() {
    let dev = Commands::start(SHELL);
    let (broker, _) = crate::dev::printed(&dev.gateway.log());
    let marker = dev.gateway.directory().join("marker");
    let id = format!("../../../../../../../..{}", marker.display());
    let program = format!("echo \"$TASKGATE_TASK_ID $PWD\" > {0}.new && mv {0}.new {0}.seen", marker.display());
    let body = base64(&json!([[program], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]));
    let message = json!({
        "body": body, "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"lang": "py", "task": "shell", "id": id, "root_id": id, "parent_id": null, "group": null, "retries": 0,
            "timelimit": [null, null], "argsrepr": "()", "kwargsrepr": "{}", "origin": "x"},
        "properties": {"correlation_id": id, "reply_to": "x", "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
            "delivery_tag": "x", "delivery_info": {"exchange": "", "routing_key": "celery"}},
    });
    let client = redis::Client::open(broker).expect("an address");
    let mut connection = client.get_connection().expect("it listens");
    redis::cmd("LPUSH").arg("celery").arg(message.to_string()).exec(&mut connection).expect("a list");
    let seen = dev.gateway.directory().join("marker.seen");
    let text = eventually("it ran", async || std::fs::read_to_string(&seen).ok()).await;
    let place = text.split_whitespace().nth(1).expect("a directory");
    assert!(!place.contains("..") && place.contains("taskgate-command-"), "{text}");
    assert!(!marker.exists());
}

fn base64(value: &Value) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(value.to_string())
}

#[tokio::test]
async fn a_command_cannot_take_more_than_its_share() {
    let dev = Commands::start(SHELL);
    let forks = "i=0; while [ $i -lt 200 ]; do sleep 30 & i=$((i+1)); done; wait";
    let done = dev.run(&shell("shell.bounded", forks)).await;
    assert_eq!(done["status"], "FAILURE", "{done}");
    assert!(done["error"]["message"].as_str().is_some_and(|text| text.contains("processes")), "{done}");
    let memory = "head -c 600000000 /dev/zero | tail -c 600000000 | wc -c";
    let done = dev.run(&shell("shell.bounded", memory)).await;
    assert_ne!(done["result"], 600_000_000, "{done}");
    let output = "while :; do echo '{\"a\": 1}'; done";
    let done = dev.run(&shell("shell.bounded", output)).await;
    assert!(done["error"]["message"].as_str().is_some_and(|text| text.contains("output")), "{done}");
    let file = "head -c 400000000 /dev/zero > big; wc -c < big";
    let done = dev.run(&shell("shell.bounded", file)).await;
    assert_ne!(done["result"], 400_000_000, "what it writes is bounded as what it holds: {done}");
}

#[tokio::test]
async fn a_value_is_never_an_option() {
    let dev = Commands::start(SHELL);
    let touched = dev.gateway.directory().join("touched");
    let checkpoint = format!("--checkpoint-action=exec=touch {}", touched.display());
    let cases = [
        ("find", json!([".", "-delete"]), "/args/1"),
        ("find", json!([".", "-exec", "touch", touched.display().to_string(), ";"]), "/args/1"),
        ("find", json!([-1]), "/args/0"),
        ("curl", json!(["-K/etc/passwd"]), "/args/0"),
        ("curl", json!(["--upload-file=/etc/passwd"]), "/args/0"),
    ];
    for (task, args, pointer) in cases {
        let answer = dev.http.post("/v1/tasks", &json!({"task": task, "args": args})).await;
        let problem = answer.problem(422, "invalid-request");
        assert!(problem["errors"].to_string().contains(pointer), "{task} {args}: {problem}");
    }
    let done = dev.run(&json!({"task": "tar", "args": ["--checkpoint=1", checkpoint, "taskgate.toml"]})).await;
    assert_eq!(done["status"], "FAILURE", "tar looks for files of these names: {done}");
    assert!(!touched.exists(), "an option was obeyed");
}
