//! Logging in: with an OpenID provider, with a password, and out again; what a session may do, and what other sites cannot do with it.

use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::provider::{Person, Provider};
use crate::edge::create;
use crate::harness::gateway::config;
use crate::harness::postgres::cluster;
use crate::harness::{Answer, Gateway, Http, Redis, RedisOptions, ports};

/// Two replicas in front of one ledger, which know a provider and a user.
struct Guarded {
    gateways: [Gateway; 2],
    provider: Provider,
    database: String,
    _redis: Redis,
}

/// As `taskgate password` prints it.
pub fn hash(password: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_taskgate"))
        .arg("password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(format!("{password}\n").as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.success());
    String::from_utf8(done.stdout).expect("a text").trim().to_owned()
}

impl Guarded {
    fn start() -> Self {
        let redis = Redis::start(RedisOptions::default());
        let database = cluster().migrated_database();
        let port = ports::free();
        let redirect = format!("http://127.0.0.1:{port}/v1/session/callback");
        let provider = Provider::start(&redirect);
        let extra = format!(
            "auth = 'oidc'\n[oidc]\nissuer = '{}'\nclient_id = 'taskgate'\nclient_secret = 'a secret of the client'\n\
             redirect_url = '{redirect}'\nscopes = ['profile', 'groups']\n\
             roles = {{staff = ['read'], ops = ['control'], root = ['admin']}}\n\
             [[users]]\nname = 'ann'\npassword = '{}'\nscopes = ['read']\n",
            provider.issuer,
            hash("a long one"),
        );
        let launch = |port| {
            let config = config(port, &database, &redis.url(0), &redis.url(1), &extra);
            Gateway::start(&["serve"], port, Some(&config), &[])
        };
        let mut gateways = [launch(port), launch(ports::free())];
        gateways.iter_mut().for_each(Gateway::wait_until_ready);
        Self { gateways, provider, database, _redis: redis }
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.gateways[0].http().base)
    }

    /// Logs in at the provider; returns with the session's cookie.
    async fn session(&self, name: &str) -> String {
        let mut person = Person::new();
        let begun = person.get(&self.address("/v1/session/login?to=/dashboard/%23/tasks")).await;
        assert_eq!(begun.status, 303, "{}", begun.page);
        let start = begun.location.expect("a place");
        let back = person.logs_in_at(&self.provider.issuer, &start, name).await;
        assert!(back.starts_with(&self.address("/v1/session/callback?")), "{back}");
        let arrived = person.get(&back).await;
        assert_eq!(
            (arrived.status, arrived.location),
            (303, Some(self.address("/dashboard/#/tasks"))),
            "{}",
            arrived.page
        );
        person.cookie(&self.address("/"), "taskgate_session").expect("a session").to_owned()
    }
}

/// A call with a session's cookie, and with the CSRF token if one is given.
async fn call(http: &Http, session: &str, csrf: Option<&str>, method: Method, path: &str) -> Answer {
    let cookie = format!("taskgate_session={session}");
    let mut headers = vec![("cookie", cookie.as_str()), ("content-type", "application/json")];
    headers.extend(csrf.map(|csrf| ("x-csrf-token", csrf)));
    let body = (method != Method::GET).then(|| b"{}".to_vec());
    http.send(method, path, &headers, body).await
}

async fn whoami(http: &Http, session: &str) -> Value {
    call(http, session, None, Method::GET, "/v1/session").await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_log_in_with_a_provider_and_may_do_what_their_roles_say() {
    let guarded = Guarded::start();
    let [one, other] = [guarded.gateways[0].http(), guarded.gateways[1].http()];
    let stranger = one.get("/v1/session").await.expect(200);
    assert_eq!(
        (&stranger["authenticated"], &stranger["login"]),
        (&json!(false), &json!({"oidc": "/v1/session/login", "password": true}))
    );

    // Any replica knows the session; a viewer may read but not revoke.
    let viewer = guarded.session("vera").await;
    let me = whoami(&other, &viewer).await;
    assert_eq!((&me["who"], &me["scopes"]), (&json!("vera"), &json!(["read"])), "{me}");
    let csrf = me["csrf"].as_str().expect("a word");
    call(&other, &viewer, None, Method::GET, "/v1/tasks").await.expect(200);
    let revoke = "/v1/tasks/some/revoke";
    call(&one, &viewer, Some(csrf), Method::POST, revoke).await.problem(403, "insufficient-scope");

    let ops = guarded.session("ops").await;
    let me = whoami(&one, &ops).await;
    assert_eq!(me["scopes"], json!(["read", "control"]), "{me}");
    let word = me["csrf"].as_str().expect("a word");
    // A page of another site can make the browser send the cookie, but not the CSRF token; another session's token is refused too.
    call(&one, &ops, None, Method::POST, revoke).await.problem(403, "forged-request");
    call(&one, &ops, Some(csrf), Method::POST, revoke).await.problem(403, "forged-request");
    call(&one, &ops, Some(word), Method::POST, "/v1/queues/mail/pause").await.expect(200);

    // The audit log names the person; only an admin may read it.
    call(&one, &ops, None, Method::GET, "/v1/audit").await.problem(403, "insufficient-scope");
    let root = guarded.session("root").await;
    let listed = call(&one, &root, None, Method::GET, "/v1/audit").await.expect(200);
    let rows = listed["audit"].as_array().expect("a list");
    let of = |who: &str, what: &str, verdict: &str| {
        rows.iter().any(|row| row["who"] == who && row["what"] == what && row["verdict"] == verdict)
    };
    assert!(of("vera", "revoke_task", "insufficient-scope") && of("ops", "pause_queue", "done"), "{listed}");
    assert!(of("ops", "revoke_task", "forged-request"), "{listed}");

    // The logout takes effect on every replica.
    assert_eq!(call(&one, &ops, None, Method::DELETE, "/v1/session").await.status, 403);
    assert_eq!(call(&one, &ops, Some(word), Method::DELETE, "/v1/session").await.status, 204);
    crate::harness::eventually("the session is over at the other replica", async || {
        (call(&other, &ops, None, Method::GET, "/v1/tasks").await.status == 401).then_some(())
    })
    .await;

    // Tokens still work beside sessions.
    let token = format!("Bearer {}", create(&guarded.database, &["--name", "ci", "--scope", "read"]));
    one.get_with("/v1/tasks", &[("authorization", &token)]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_another_browser_and_a_person_without_a_role_are_refused() {
    let guarded = Guarded::start();
    let mut person = Person::new();
    let begun = person.get(&guarded.address("/v1/session/login?to=https://evil.example/")).await;
    let back = person.logs_in_at(&guarded.provider.issuer, &begun.location.expect("a place"), "ops").await;
    // A browser that only received the link did not begin this login.
    let refused = Person::new().get(&back).await;
    assert!(refused.status == 401 && refused.page.contains("login-failed"), "{}", refused.page);
    // Neither did a browser that began another login.
    let mut second = Person::new();
    second.get(&guarded.address("/v1/session/login")).await;
    assert_eq!(second.get(&back).await.status, 401);
    // The browser that began it is logged in, and never redirected to another site; the code works only once.
    let arrived = person.get(&back).await;
    assert_eq!((arrived.status, arrived.location), (303, Some(guarded.address("/dashboard/"))), "{}", arrived.page);
    assert_eq!(person.get(&back).await.status, 401);

    let mut nobody = Person::new();
    let begun = nobody.get(&guarded.address("/v1/session/login")).await;
    let back = nobody.logs_in_at(&guarded.provider.issuer, &begun.location.expect("a place"), "stranger").await;
    let refused = nobody.get(&back).await;
    assert!(refused.status == 403 && refused.page.contains("no-role"), "{}", refused.page);
    let cancelled = guarded.address("/v1/session/callback?error=access_denied&error_description=no");
    let refused = Person::new().get(&cancelled).await;
    assert!(refused.status == 401 && refused.page.contains("access_denied"), "{}", refused.page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_logs_in_and_guessing_ends() {
    let guarded = Guarded::start();
    let http = guarded.gateways[0].http();
    let basic = |text: &str| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    };
    for (given, status) in [("ann:a long one", 200), ("ann:another", 401), ("bob:a long one", 401)] {
        assert_eq!(http.get_with("/v1/tasks", &[("authorization", &basic(given))]).await.status, status, "{given}");
    }
    let logged_in = http.post("/v1/session", &json!({"user": "ann", "password": "a long one"})).await;
    let cookie = logged_in.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let me = logged_in.expect(200);
    let session = cookie.split(['=', ';']).nth(1).expect("a value");
    assert_eq!((&me["who"], &whoami(&http, session).await["who"]), (&json!("ann"), &json!("ann")));
    let csrf = me["csrf"].as_str();
    call(&http, session, csrf, Method::POST, "/v1/tasks/some/revoke").await.problem(403, "insufficient-scope");
    http.post("/v1/session", &json!({"user": "ann"})).await.problem(422, "invalid-request");
    let mut last = 401;
    for _ in 0..20 {
        last = http.post("/v1/session", &json!({"user": "guessed", "password": "x"})).await.status;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    // The same limit applies to `Authorization: Basic`; a refusal there does not end a session.
    let guess = basic("tried:x");
    let tried = async || http.get_with("/v1/tasks", &[("authorization", &guess)]).await.status;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(tried().await);
    }
    assert!(statuses[..5].iter().all(|status| *status == 401) && statuses.contains(&429), "{statuses:?}");
    let out = http.send(Method::DELETE, "/v1/session", &[("authorization", &guess)], None).await;
    assert!([204, 429].contains(&out.status), "{}", out.status);
    // A name that no user can have is refused before it is counted.
    let long = basic(&format!("{}:x", "n".repeat(300)));
    for _ in 0..15 {
        assert_eq!(http.get_with("/v1/tasks", &[("authorization", &long)]).await.status, 401);
    }
    // A password that is right is counted once a minute, not with each request.
    let right = basic("ann:a long one");
    for _ in 0..30 {
        assert_eq!(http.get_with("/v1/tasks", &[("authorization", &right)]).await.status, 200);
    }
    // Guesses at one user's password do not lock out the others.
    http.post("/v1/session", &json!({"user": "ann", "password": "a long one"})).await.expect(200);
}
