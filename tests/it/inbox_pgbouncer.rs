//! Both sides of an inbox through a PgBouncer in transaction mode: calls are enqueued over it, and drained over it.

use crate::harness::environment::{Harness, Options};
use crate::harness::{PgBouncer, eventually, gateway, postgres};

#[tokio::test]
async fn an_inbox_works_through_a_pgbouncer_in_transaction_mode() {
    let shop = postgres::cluster().empty_database();
    let bouncer = PgBouncer::start(postgres::cluster(), "transaction", "");
    let through = bouncer.url(&shop);
    let done = gateway::run(&["inbox", "install", &through], &[]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let config = format!("[[inboxes]]\nurl = '{through}'\npoll = '100ms'\n");
    let env = Harness::start(&Options { config, ..Options::default() });
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(postgres::query(&through, &format!("select taskgate.enqueue('demo.add', '[{n}, 1]')")));
    }
    for (n, id) in ids.iter().enumerate() {
        assert_ne!(env.http.get(&format!("/result/{id}")).await.status, 404, "{id} is committed");
        assert_eq!(env.finished(id).await["result"], n + 1);
    }
    eventually("no call waits", async || {
        let status = gateway::run(&["inbox", "status", "--json", &through], &[]);
        String::from_utf8_lossy(&status.stdout).contains("\"waiting\":0").then_some(())
    })
    .await;
}
