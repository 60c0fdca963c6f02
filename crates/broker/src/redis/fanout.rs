//! The worker's side of remote control: receives requests, and sends replies to the sender's list.
//!
//! Lossy by nature: requests while the worker is not connected are lost.

use redis::aio::PubSub;

use super::{Broker, CONTROL_EXCHANGE, Error};
use celery::binding::{self, Member};
use celery::task::Priority;

impl Broker {
    /// A connection that listens for remote-control requests.
    pub async fn control_requests(&self) -> Result<PubSub, Error> {
        let mut subscription = self.link.pubsub().await?;
        subscription.psubscribe(self.keys.fanout(CONTROL_EXCHANGE, "")).await?;
        Ok(subscription)
    }

    /// Sends a message through an exchange like kombu: without an exchange to the list itself, else to every queue bound to the key.
    pub async fn reply(&self, exchange: &str, routing_key: &str, message: &[u8]) -> Result<(), Error> {
        let queues =
            if exchange.is_empty() { vec![routing_key.to_owned()] } else { self.bound(exchange, routing_key).await? };
        for queue in queues {
            let mut command = redis::cmd("LPUSH");
            command.arg(self.keys.queue(&queue, Priority::default())).arg(message);
            let _: u64 = self.link.call(&command).await?;
        }
        Ok(())
    }

    /// The queues to which an exchange routes this key.
    pub async fn bound(&self, exchange: &str, routing_key: &str) -> Result<Vec<String>, Error> {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(self.keys.binding(exchange));
        let members: Vec<String> = self.link.call(&members).await?;
        let sep = &self.keys.transport().sep;
        let members: Vec<Member> = members.iter().filter_map(|member| Member::decode(member, sep)).collect();
        Ok(binding::route(&members, routing_key).into_iter().map(str::to_owned).collect())
    }
}
