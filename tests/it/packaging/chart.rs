//! The Helm chart: rendered by Helm, held against the schemas of the oldest and the newest Kubernetes and of KEDA.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{done, tool, yaml};
use crate::harness::celery::root;

const KUBERNETES: [&str; 2] = ["1.25", "1.37"];

fn helm() -> Command {
    let ours = root().join(".venv/helm/helm");
    let mut command = Command::new(if ours.exists() { ours } else { PathBuf::from("helm") });
    command.current_dir(root().join("deploy/helm"));
    command
}

/// As `helm install` would render the chart with these values.
fn template(values: &Value) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), values.to_string()).expect("written");
    helm()
        .args(["template", "taskgate", "taskgate", "--values"])
        .arg(file.path())
        .output()
        .expect("helm is there: run tests/setup.sh")
}

fn rendered(values: &Value) -> Vec<Value> {
    let output = template(values);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), output.stdout).expect("written");
    yaml(file.path()).into_iter().filter(|object| !object.is_null()).collect()
}

/// Helm's error about values that it refuses.
fn refused(values: &Value) -> String {
    let output = template(values);
    assert!(!output.status.success(), "{values} was rendered");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn smallest() -> Value {
    json!({"image": {"repository": "registry.example/taskgate"}, "secret": {"existing": "fleet"}})
}

fn everything() -> Value {
    json!({
        "image": {"repository": "registry.example:5000/team/taskgate", "tag": "1.2.3", "pullSecrets": [{"name": "pull"}]},
        "secret": {"values": {"DATABASE_URL": "postgres://db/taskgate", "CELERY_BROKER_URL": "redis://redis/0"}},
        "gateway": {
            "replicas": 3,
            "env": [{"name": "TASKGATE_LOG__FORMAT", "value": "json"}],
            "podAnnotations": {"team": "crawlers"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
        },
        "service": {"type": "LoadBalancer", "port": 8080},
        "ingress": {"enabled": true, "className": "nginx", "host": "tasks.example", "tlsSecret": "tasks-tls"},
        "workers": {
            "crawl": {
                "queues": ["crawl", "crawl.slow"],
                "concurrency": 8,
                "resources": {"requests": {"cpu": "100m"}},
                "autoscaling": {"min": 0, "max": 20, "tasksPerReplica": 5},
            },
            "plain": {"queues": ["celery"], "replicas": 2, "env": [{"name": "SAMPLE", "value": "1"}]},
        },
        "scale": [{"name": "resize", "deployment": "resize-worker", "queues": ["images"], "max": 9}],
        "keda": {"prometheus": "http://prometheus:9090"},
    })
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn the_oldest_and_the_newest_kubernetes_understand_what_the_chart_renders() {
    for values in [smallest(), everything()] {
        // KEDA's objects have schemas of their own, below.
        let objects: Vec<_> = rendered(&values).into_iter().filter(|object| object["kind"] != "ScaledObject").collect();
        let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
        let documents: Vec<_> = objects.iter().map(Value::to_string).collect();
        std::fs::write(file.path(), documents.join("\n---\n")).expect("written");
        for version in KUBERNETES {
            let mut validate = tool("kubernetes-validate");
            validate.args(["--strict", "--kubernetes-version", version]).arg(file.path());
            let said = done(validate);
            assert_eq!(said.matches(" passed for resource ").count(), objects.len(), "{said}");
        }
    }
}

#[test]
fn keda_understands_the_scaled_objects() {
    let objects = rendered(&everything());
    let scaled = of_kind(&objects, "ScaledObject");
    assert_eq!(scaled.len(), 2);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), json!(scaled).to_string()).expect("written");
    let mut check = Command::new("node");
    check.arg(root().join("tests/it/packaging/keda.mjs")).arg(root().join(".venv/keda")).arg(file.path());
    assert!(done(check).contains("2 understood"));
}

#[test]
fn scaling_counts_what_waits_and_what_is_reserved_in_all_queues_of_the_worker() {
    let objects = rendered(&everything());
    let scaled = of_kind(&objects, "ScaledObject");
    let crawl = scaled.iter().find(|object| object["spec"]["scaleTargetRef"]["name"] == "taskgate-crawl").expect("it");
    let trigger = &crawl["spec"]["triggers"][0];
    let query = trigger["metadata"]["query"].as_str().expect("a query");
    for metric in ["celery_queue_length", "taskgate_queue_reserved"] {
        assert!(query.contains(&format!(r#"{metric}{{queue_name=~"crawl|crawl\\.slow"}}"#)), "{query}");
    }
    assert_eq!(trigger["metadata"]["threshold"], "5");
    // A Deployment with a number of its own would fight with KEDA at each upgrade.
    let deployments = of_kind(&objects, "Deployment");
    let replicas = |name: &str| {
        let found = deployments.iter().find(|object| object["metadata"]["name"] == name).expect(name);
        found["spec"]["replicas"].clone()
    };
    assert_eq!(replicas("taskgate-crawl"), Value::Null);
    assert_eq!(replicas("taskgate-plain"), 2);
}

#[test]
fn no_pod_is_root_or_can_write_or_reach_the_api_server() {
    let objects = rendered(&everything());
    let deployments = of_kind(&objects, "Deployment");
    assert_eq!(deployments.len(), 3);
    for deployment in deployments {
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        // A Service named taskgate would set TASKGATE_PORT, which taskgate refuses as an unknown key.
        assert_eq!(pod["enableServiceLinks"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for container in pod["containers"].as_array().expect("containers") {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        }
    }
}

#[test]
fn what_is_missing_or_misspelt_is_named() {
    let with = |path: &str, value: Value| {
        let mut values = smallest();
        *values.pointer_mut(path).expect(path) = value;
        refused(&values)
    };
    assert!(with("/image", json!({})).contains("image.repository: where you pushed the image"));
    assert!(with("/secret", json!({})).contains("secret.existing: the name of a Secret"));
    assert!(with("/secret", json!({"exsisting": "fleet"})).contains("exsisting"));
    let mut values = everything();
    values["keda"] = json!({});
    assert!(refused(&values).contains("keda.prometheus: the address of a Prometheus"));
    values["workers"]["plain"] = json!({"replicas": 1});
    assert!(refused(&values).contains("queues"));
}

#[test]
fn the_default_configuration_is_understood() {
    let values = yaml(&root().join("deploy/helm/taskgate/values.yaml")).remove(0);
    let text = values["config"].as_str().expect("a text").to_owned() + "database.url = \"postgres://db/taskgate\"\n";
    let understood = taskgate::config::Config::parse(taskgate::config::Role::Serve, &text);
    assert!(understood.is_ok(), "{:?}", understood.err());
}
