//! Signatures of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, one for each secret that is valid at present.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use celery::task::webhook::key;

/// The value of `webhook-signature`: `v1,…`, separated by spaces. An unreadable secret signs nothing.
pub fn signature(secrets: &[&str], id: &str, timestamp: i64, body: &str) -> String {
    let content = format!("{id}.{timestamp}.{body}");
    let sign = |secret: &&str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key(secret)?).ok()?;
        mac.update(content.as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_what_every_receiver_computes() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = "{\"test\": 2432232314}";
        let signed = signature(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_valid_secret_signs() {
        let secrets = [crate::tell::webhooks::new_secret(), crate::tell::webhooks::new_secret()];
        let signed = signature(&[&secrets[0], &secrets[1], "nonsense"], "msg_1", 1, "{}");
        assert_eq!(signed.split(' ').count(), 2);
        assert!(signed.split(' ').all(|signature| signature.starts_with("v1,")));
    }
}
