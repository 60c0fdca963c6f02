//! Tokens and tickets: every replica gives the same answer about who may call.

use ledger::{Scope, Token};

use super::fixture::{Fixture, T0, after};

super::on_both!(
    a_token_is_found_by_its_hash,
    a_name_belongs_to_one_valid_token,
    every_change_is_seen_in_the_version,
    a_later_use_is_kept,
    a_ticket_is_taken_once,
);

fn token(name: &str, byte: u8) -> Token {
    Token {
        id: format!("id-{name}-{byte}"),
        name: name.to_owned(),
        hash: [byte; 32],
        scopes: vec![Scope::Submit, Scope::Read],
        tasks: vec!["tasks.*".to_owned()],
        namespace: None,
        person: None,
        rate: Some("100/m".to_owned()),
        created_at: T0,
        expires_at: Some(after(60)),
        revoked_at: None,
        last_used_at: None,
    }
}

async fn a_token_is_found_by_its_hash(fixture: &Fixture) {
    let (one, two) = (token("one", 1), Token { expires_at: None, tasks: Vec::new(), ..token("two", 0xf2) });
    assert!(fixture.ledger.create_token(&one).await.unwrap());
    assert!(fixture.ledger.create_token(&two).await.unwrap());
    let another = fixture.another();
    assert_eq!(another.tokens_by_hash(&[one.hash]).await.unwrap(), std::slice::from_ref(&one));
    assert_eq!(another.tokens_by_hash(&[two.hash, one.hash, [9; 32]]).await.unwrap().len(), 2);
    assert!(another.tokens_by_hash(&[]).await.unwrap().is_empty());
    let revoked = fixture.ledger.revoke_token("two", after(5)).await.unwrap().unwrap();
    assert_eq!(revoked, Token { revoked_at: Some(after(5)), ..two });
    assert_eq!(another.tokens_by_hash(&[revoked.hash]).await.unwrap(), [revoked]);
    assert_eq!(fixture.ledger.revoke_token(&one.id, after(6)).await.unwrap().unwrap().revoked_at, Some(after(6)));
    assert!(fixture.ledger.revoke_token("one", after(7)).await.unwrap().is_none());
    assert_eq!(fixture.ledger.tokens(10).await.unwrap().len(), 2);
}

async fn a_name_belongs_to_one_valid_token(fixture: &Fixture) {
    assert!(fixture.ledger.create_token(&token("ci", 1)).await.unwrap());
    assert!(!fixture.ledger.create_token(&token("ci", 2)).await.unwrap());
    // The first one has expired by then.
    let later = Token { created_at: after(61), ..token("ci", 3) };
    assert!(fixture.ledger.create_token(&later).await.unwrap());
    fixture.ledger.revoke_token("ci", after(62)).await.unwrap().unwrap();
    assert!(fixture.ledger.create_token(&Token { created_at: after(63), ..token("ci", 4) }).await.unwrap());
}

async fn every_change_is_seen_in_the_version(fixture: &Fixture) {
    let first = fixture.ledger.token_version().await.unwrap();
    fixture.ledger.create_token(&token("ci", 1)).await.unwrap();
    let second = fixture.another().token_version().await.unwrap();
    fixture.ledger.revoke_token("ci", after(1)).await.unwrap();
    let third = fixture.ledger.token_version().await.unwrap();
    assert!(first < second && second < third, "{first} {second} {third}");
    fixture.ledger.note_token_uses(&[("id-ci-1".to_owned(), after(2))]).await.unwrap();
    assert_eq!(fixture.ledger.token_version().await.unwrap(), third);
}

async fn a_later_use_is_kept(fixture: &Fixture) {
    fixture.ledger.create_token(&token("a", 1)).await.unwrap();
    fixture.ledger.create_token(&token("b", 2)).await.unwrap();
    let uses = [("id-a-1".to_owned(), after(9)), ("id-b-2".to_owned(), after(5)), ("gone".to_owned(), after(5))];
    fixture.ledger.note_token_uses(&uses).await.unwrap();
    fixture.ledger.note_token_uses(&[("id-a-1".to_owned(), after(4))]).await.unwrap();
    let used = |tokens: Vec<Token>| tokens.into_iter().map(|token| token.last_used_at).collect::<Vec<_>>();
    assert_eq!(used(fixture.ledger.tokens_by_hash(&[[1; 32]]).await.unwrap()), [Some(after(9))]);
    assert_eq!(used(fixture.ledger.tokens_by_hash(&[[2; 32]]).await.unwrap()), [Some(after(5))]);
}

async fn a_ticket_is_taken_once(fixture: &Fixture) {
    let (ledger, another) = (&fixture.ledger, fixture.another());
    ledger.add_ticket(&[1; 32], &[7; 32], T0, after(30)).await.unwrap();
    ledger.add_ticket(&[2; 32], &[8; 32], T0, after(30)).await.unwrap();
    let (mine, others) = tokio::join!(ledger.take_ticket(&[1; 32], after(1)), another.take_ticket(&[1; 32], after(1)));
    let taken: Vec<_> = [mine.unwrap(), others.unwrap()].into_iter().flatten().collect();
    assert_eq!(taken, [[7; 32]]);
    assert_eq!(ledger.take_ticket(&[1; 32], after(1)).await.unwrap(), None);
    assert_eq!(another.take_ticket(&[2; 32], after(30)).await.unwrap(), None);
    assert_eq!(another.take_ticket(&[3; 32], after(1)).await.unwrap(), None);
}
