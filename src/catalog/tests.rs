use super::*;
use crate::config::Role;

fn catalog(toml: &str) -> Catalog {
    Catalog::compile(&Config::parse(Role::Dev, toml).unwrap()).unwrap()
}

fn refused(toml: &str) -> String {
    Catalog::compile(&Config::parse(Role::Dev, toml).unwrap()).expect_err("must be refused").to_string()
}

fn resolve(catalog: &Catalog, path: &[(&str, &str)], body: &str) -> Result<Call, ResolveError> {
    let path: Vec<_> = path.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    catalog.entries()[0].resolve(&path, body)
}

fn errors(outcome: Result<Call, ResolveError>) -> Vec<(String, String)> {
    match outcome.expect_err("must be refused") {
        ResolveError::Invalid(errors) => errors.into_iter().map(|error| (error.pointer, error.detail)).collect(),
        other @ ResolveError::UnknownValue { .. } => panic!("{other}"),
    }
}

const CRAWL: &str = r#"
    [[tasks]]
    name = "tasks.college_crawl_task"
    endpoint = "POST /run-crawler/{category}"
    args = ["{category}"]
    queue = "crawl"
    priority = 1
    soft_time_limit = 1500
    time_limit = 1800
    rate_limit = "100/m"
    message = "Crawling {category} in the background"
    values.category = { volunteer = "봉사 공지사항 크롤링", job = "취업 공지사항 크롤링" }
"#;

const MAIL: &str = r#"
    [[tasks]]
    name = "tasks.mail"
    endpoint = "POST /mail/{list}"
    args = ["{emails}", "{size}"]
    kwargs = { subject = "Hello {who}", list = "{list}", factor = "{factor}", note = "{note}" }
    queue = "{speed}"
    max_items = { emails = 2 }
    values.speed = { fast = "urgent", slow = "light" }
    body = { type = "object", required = ["emails"], properties = { emails = { type = "array" }, size = { type = "number" }, who = { type = "string", default = "you" }, factor = { default = 3 }, note = {}, speed = { default = "slow" } } }
"#;

#[test]
fn a_path_value_is_mapped_for_the_worker_and_shown_as_said() {
    let catalog = catalog(CRAWL);
    let call = resolve(&catalog, &[("category", "job")], "").unwrap();
    assert_eq!(call.args.get(), "[\"취업 공지사항 크롤링\"]");
    assert_eq!(call.kwargs.get(), "{}");
    assert_eq!(call.message.as_deref(), Some("Crawling job in the background"));
    assert_eq!(call.echo, [("category".to_owned(), "job".to_owned())]);
    assert_eq!(call.queue.unwrap().as_str(), "crawl");
}

#[test]
fn an_unknown_path_value_lists_the_known_ones() {
    let error = resolve(&catalog(CRAWL), &[("category", "sports")], "").unwrap_err();
    assert_eq!(error.to_string(), "\"sports\" is not a known category: job, volunteer");
}

#[test]
fn without_a_schema_only_an_empty_body_or_an_empty_object_is_taken() {
    let catalog = catalog(CRAWL);
    assert!(resolve(&catalog, &[("category", "job")], " {} ").is_ok());
    for body in [r#"{"x":1}"#, "[]", "null", "1"] {
        assert_eq!(errors(resolve(&catalog, &[("category", "job")], body))[0].0, "");
    }
}

#[test]
fn body_fields_fill_templates_digit_for_digit() {
    let body = r#"{"emails": ["a@b", 1.0], "size": 123456789012345678901234567890.5, "speed": "fast"}"#;
    let call = resolve(&catalog(MAIL), &[("list", "news")], body).unwrap();
    assert_eq!(call.args.get(), r#"[["a@b", 1.0], 123456789012345678901234567890.5]"#);
    assert_eq!(call.kwargs.get(), r#"{"factor": 3, "list": "news", "note": null, "subject": "Hello you"}"#);
    assert_eq!(call.queue.unwrap().as_str(), "urgent");
}

#[test]
fn an_absent_field_is_its_default_mapped_too() {
    let call = resolve(&catalog(MAIL), &[("list", "news")], r#"{"emails": []}"#).unwrap();
    assert_eq!(call.args.get(), "[[], null]");
    assert_eq!(call.queue.unwrap().as_str(), "light");
}

#[test]
fn what_does_not_fit_is_named_by_pointer() {
    let catalog = catalog(MAIL);
    let path = [("list", "news")];
    assert_eq!(errors(resolve(&catalog, &path, "")), [("/emails".to_owned(), "is required".to_owned())]);
    let found = errors(resolve(&catalog, &path, r#"{"emails": [1, 2, 3]}"#));
    assert_eq!(found, [("/emails".to_owned(), "has 3 items, at most 2 are allowed".to_owned())]);
    let found = errors(resolve(&catalog, &path, r#"{"emails": [], "sise": 1}"#));
    assert_eq!(found[0].0, "/sise");
    assert!(found[0].1.contains("did you mean size?"), "{}", found[0].1);
    assert_eq!(errors(resolve(&catalog, &path, r#"{"emails": [], "size": "big"}"#))[0].0, "/size");
    assert_eq!(errors(resolve(&catalog, &path, r#"{"emails": [], "speed": "warp"}"#))[0].0, "/speed");
}

#[test]
fn redacted_entries_do_not_quote_values() {
    let toml = r#"
        [[tasks]]
        name = "tasks.login"
        endpoint = "POST /login"
        redact = ["password"]
        body = { properties = { password = { type = "integer" } } }
    "#;
    let found = errors(resolve(&catalog(toml), &[], r#"{"password": "geheim"}"#));
    assert_eq!(found[0].0, "/password");
    assert!(!found[0].1.contains("geheim"), "{}", found[0].1);
}

#[test]
fn queues_come_from_the_entry_then_the_exact_route_then_the_longest_pattern() {
    let catalog = catalog(&format!(
        "{CRAWL}\n[routes]\n\"tasks.*\" = \"light\"\n\"tasks.heavy.*\" = \"heavy\"\n\"tasks.heavy.one\" = \"urgent\"\n\"tasks.college_crawl_task\" = \"other\""
    ));
    assert_eq!(catalog.queue_for("tasks.college_crawl_task").as_str(), "crawl");
    assert_eq!(catalog.queue_for("tasks.heavy.one").as_str(), "urgent");
    assert_eq!(catalog.queue_for("tasks.heavy.two").as_str(), "heavy");
    assert_eq!(catalog.queue_for("tasks.add").as_str(), "light");
    assert_eq!(catalog.queue_for("reports.daily").as_str(), "celery");
    let defaults = catalog.defaults_for("tasks.college_crawl_task");
    assert_eq!(defaults.priority, celery::task::Priority::new(1));
    assert_eq!(defaults.time_limit, Some(1_800.0));
    assert!((defaults.rate_limit.unwrap().per_second - 100.0 / 60.0).abs() < 1e-9);
}

#[test]
fn only_the_catalog_and_the_allow_list_may_be_named() {
    let catalog = catalog(&format!("submit.allow = [\"reports.*\"]\n{CRAWL}"));
    assert!(catalog.permits("tasks.college_crawl_task"));
    assert!(catalog.permits("reports.daily"));
    assert!(!catalog.permits("os.system"));
}

#[test]
fn two_endpoints_alike_are_refused_with_both_places() {
    let error =
        refused("[[tasks]]\nname=\"a\"\nendpoint=\"POST /x/{one}\"\n[[tasks]]\nname=\"b\"\nendpoint=\"POST /x/{two}\"");
    assert!(error.contains("tasks[0] (a).endpoint") && error.contains("tasks[1] (b).endpoint"), "{error}");
}

#[test]
fn a_template_that_names_nothing_is_refused() {
    let error = refused("[[tasks]]\nname=\"a\"\nendpoint=\"POST /x/{category}\"\nargs=[\"{categry}\"]");
    assert!(error.contains("tasks[0] (a).args") && error.contains("did you mean category?"), "{error}");
}

#[test]
fn contradictions_inside_an_entry_are_refused() {
    for (lines, words) in [
        ("soft_time_limit = 10\ntime_limit = 5", ["soft_time_limit", "time_limit"]),
        ("endpoint = \"POST /x/{n}\"\nbody = { properties = { n = {} } }", ["endpoint", "body"]),
        ("priority = 10", ["priority", "0 to 9"]),
        ("rate_limit = \"fast\"", ["rate_limit", "100/m"]),
        ("recovery = \"hope\"", ["recovery", "rerun"]),
        ("body = { type = \"array\" }", ["body", "object"]),
        ("body = { properties = { n = { type = \"intger\" } } }", ["body", "JSON Schema"]),
        ("body = { \"$ref\" = \"http://127.0.0.1:1/schema\" }", ["body", "JSON Schema"]),
        ("max_items = { n = 1 }", ["max_items", "body"]),
        ("endpoint = \"POST /metrics\"", ["endpoint", "belongs to the gateway"]),
    ] {
        let error = refused(&format!("[[tasks]]\nname = \"a\"\n{lines}"));
        assert!(words.iter().all(|word| error.contains(word)), "{lines}: {error}");
    }
}

#[test]
fn the_sample_configuration_compiles() {
    let catalog = catalog(include_str!("../../examples/taskgate.toml"));
    let endpoints: Vec<&str> = catalog
        .entries()
        .iter()
        .filter_map(|entry| entry.endpoint.as_ref())
        .map(|endpoint| endpoint.path.as_str())
        .collect();
    for path in ["/run-crawler/{category}", "/start/{upload_id}", "/add", "/test-request-info"] {
        assert!(endpoints.contains(&path), "{path}");
    }
}

#[test]
fn a_task_of_an_entry_has_five_minutes_unless_the_entry_says_otherwise() {
    let catalog = catalog("[[tasks]]\nname = 'a'\n[[tasks]]\nname = 'b'\nbudget = '1h'\n");
    let budgets = ["a", "b", "c"].map(|name| catalog.budget(name));
    assert_eq!(budgets, [Some(300.0), Some(3_600.0), None], "nothing is known of a task without an entry");
}

#[test]
fn an_upload_that_cannot_be_meant_stops_the_start() {
    let store = "[stores.default]\nurl = 's3://b'\n";
    for (lines, words) in [
        ("upload = { field = 'file' }", vec!["upload", "endpoint"]),
        ("endpoint = 'POST /a'\nupload = { field = 'file', store = 'other' }", vec!["upload.store", "[stores.other]"]),
        ("endpoint = 'POST /a/{file}'\nupload = { field = 'file' }", vec!["{file}", "both"]),
        ("endpoint = 'POST /a'\nargs = ['{file_hash}']\nupload = { field = 'file' }", vec!["args", "{file_hash}"]),
        ("endpoint = 'POST /a'\nupload = { field = 'file', max = 'big' }", vec!["upload", "big"]),
    ] {
        let error = refused(&format!("{store}[[tasks]]\nname = 'a'\n{lines}\n"));
        assert!(words.iter().all(|word| error.contains(word)), "{lines}: {error}");
    }
    let config = Config::parse(Role::Check, "[[tasks]]\nname = 'a'\noffload = '1 KiB'\n").unwrap();
    let error = Catalog::compile(&config).unwrap_err().to_string();
    assert!(error.contains("offload") && error.contains("[stores.default]"), "{error}");
}

#[test]
fn a_route_leads_through_an_exchange_to_the_queues_that_take_its_key() {
    let exchanges = r#"
[exchanges.orders]
type = "topic"
bindings = [{ queue = "eu", routing_key = "order.*.eu" }, { queue = "all", routing_key = "order.#" }]
[exchanges.news]
type = "fanout"
[routes]
"a" = { exchange = "orders", routing_key = "order.new.us" }
"b" = { exchange = "orders", routing_key = "order.new.eu" }
"c" = { exchange = "news" }
"d" = { exchange = "news", routing_key = "sport" }
"#;
    let catalog = catalog(exchanges);
    let spread = |name: &str| catalog.spread_for(name, &catalog.queue_for(name), false).cloned();
    let fanout = |key: &str| Spread::Fanout { exchange: "news".into(), routing_key: key.into() };
    assert_eq!((catalog.queue_for("a").as_str(), spread("a")), ("all", None));
    let all = QueueName::parse("all").unwrap();
    assert_eq!((catalog.queue_for("b").as_str(), spread("b")), ("eu", Some(Spread::Copies(vec![all]))));
    assert_eq!((catalog.queue_for("c").as_str(), spread("c")), ("news", Some(fanout("celery"))));
    assert_eq!(spread("d"), Some(fanout("sport")));
    let news = QueueName::parse("news").unwrap();
    assert_eq!(catalog.spread_for("b", &news, true), Some(&fanout("celery")), "a call may name a fanout as its queue");
    let eu = QueueName::parse("eu").unwrap();
    assert_eq!(catalog.spread_for("b", &eu, true), None, "a call that names its queue means that one");
    let queues: Vec<String> = catalog.queues().iter().map(ToString::to_string).collect();
    assert_eq!(queues, ["all", "celery", "eu"]);
}

#[test]
fn a_route_that_leads_nowhere_stops_the_start() {
    let exchange = "[exchanges.orders]\nbindings = [{ queue = \"eu\", routing_key = \"k\" }]\n[routes]\n";
    let refused = |route: &str| refused(&format!("{exchange}{route}"));
    let error = refused("a = { exchange = \"orders\", routing_key = \"x\" }");
    assert!(error.contains("exchanges.orders.bindings") && error.contains("\"x\""), "{error}");
    let error = refused("a = { exchange = \"order\" }");
    assert!(error.contains("did you mean orders?"), "{error}");
}

#[test]
fn words_of_a_request_never_become_words_of_a_namespace() {
    let catalog = catalog(
        "[[tasks]]\nname = 'a.b'\nendpoint = 'POST /b/{who}'\nfair = {key = '{who}'}\nlimits = [{key = '{who}', max = 1}, {key = 'host {who}', max = 1}]\n\
         unique = {key = '{who}'}\n\
         [[tasks]]\nname = 'a.c'\nendpoint = 'POST /c/{who}'\nlimits = [{key = '@shared/{who}', max = 1}]\n",
    );
    for (given, key) in [("@first/once", "%40first/once"), ("ann", "ann"), ("a@b", "a@b")] {
        let call = resolve(&catalog, &[("who", given)], "").unwrap();
        assert_eq!(call.limits[0].key, key);
        assert_eq!(call.limits[1].key, format!("host {given}"));
        assert_eq!((call.unique.unwrap().key, call.fair.unwrap().key), (key.to_owned(), key.to_owned()));
    }
    let own = catalog.entries()[1].resolve(&[("who".to_owned(), "ann".to_owned())], "").unwrap();
    assert_eq!(own.limits[0].key, "@shared/ann", "the owner's text begins so");
    let long = resolve(&catalog, &[("who", &format!("@{}", "x".repeat(400)))], "").unwrap();
    assert_eq!(long.limits[0].key.chars().count(), 255);
}

#[test]
fn what_no_worker_could_decode_is_refused_with_its_place() {
    let entry = "[[tasks]]\nname = 'a.b'\nendpoint = 'POST /b'\nargs = ['{a~b}']\nbody = {type = 'object', properties = {'a~b' = {}}}\n";
    let body = r#"{"a~b": {"x/y": [{"__type__": "money", "__value__": 1}]}}"#;
    let (pointer, detail) = errors(resolve(&catalog(entry), &[], body)).remove(0);
    assert_eq!(pointer, "/a~0b/x~1y/0");
    assert!(detail.contains("workers know no type"), "{detail}");
    let known = catalog(&format!("limits.json_types = ['money']\n{entry}"));
    resolve(&known, &[], body).unwrap();
}

#[test]
fn what_some_entry_has_is_known_for_all() {
    let has = |toml: &str| {
        let catalog = catalog(toml);
        (catalog.has_links(), catalog.has_unique(), catalog.has_strict())
    };
    assert_eq!(has("[[tasks]]\nname = 'a.b'\n"), (false, false, false));
    assert_eq!(has("[[tasks]]\nname = 'a.b'\nstrict = true\n"), (false, false, true));
    assert_eq!(has("[[tasks]]\nname = 'a.b'\nunique = {key = 'k'}\nlink = [{task = 'a.c'}]\n"), (true, true, false));
}
