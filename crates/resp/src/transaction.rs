//! `MULTI`, `EXEC`, `WATCH`: commands are queued, then run without anything in between.

use std::rc::Rc;

use bytes::Bytes;

use super::{
    client::{Client, Transaction},
    engine::Engine,
    failure::{Answer, text},
    reply::Reply,
};

pub fn multi(_engine: &Engine, client: &Rc<Client>, _args: &[Bytes]) -> Answer {
    let mut transaction = client.transaction.borrow_mut();
    if transaction.is_some() {
        return Err(text("ERR MULTI calls can not be nested"));
    }
    *transaction = Some(Transaction::default());
    Ok(Reply::OK)
}

pub fn discard(engine: &Engine, client: &Rc<Client>, _args: &[Bytes]) -> Answer {
    if client.transaction.take().is_none() {
        return Err(text("ERR DISCARD without MULTI"));
    }
    forget_watched(engine, client);
    Ok(Reply::OK)
}

pub fn exec(engine: &Engine, client: &Rc<Client>, _args: &[Bytes]) -> Answer {
    let Some(transaction) = client.transaction.take() else { return Err(text("ERR EXEC without MULTI")) };
    engine.state.borrow_mut().space.watched_keys_due(&client.watched.borrow());
    let changed = client.watched_changed.get();
    forget_watched(engine, client);
    if transaction.broken {
        return Err(text("EXECABORT Transaction discarded because of previous errors."));
    }
    if changed {
        return Ok(Reply::NilArray);
    }
    // The answers are written one by one, so that a message that the client publishes to itself appears in its place.
    client.begin_array(transaction.queue.len());
    for args in &transaction.queue {
        let reply = engine.run_queued(client, args);
        client.answer(&reply);
    }
    Ok(Reply::Silent)
}

pub fn watch(engine: &Engine, client: &Rc<Client>, args: &[Bytes]) -> Answer {
    if client.transaction.borrow().is_some() {
        return Err(text("ERR WATCH inside MULTI is not allowed"));
    }
    let mut state = engine.state.borrow_mut();
    for key in &args[1..] {
        state.space.watch(client.db.get(), key, &client.watched_changed);
        client.watched.borrow_mut().push((client.db.get(), key.clone()));
    }
    Ok(Reply::OK)
}

pub fn unwatch(engine: &Engine, client: &Rc<Client>, _args: &[Bytes]) -> Answer {
    forget_watched(engine, client);
    Ok(Reply::OK)
}

pub fn forget_watched(engine: &Engine, client: &Client) {
    let places = client.watched.take();
    engine.state.borrow_mut().space.unwatch(&places, &client.watched_changed);
    client.watched_changed.set(false);
}
