//! TLS from certificate files; HTTP/2 is offered first. Changed files are reloaded, so certificates can be renewed without a restart.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::TlsFiles;

/// How often the files are checked for changes.
const PERIOD: Duration = Duration::from_secs(5);

/// Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    current: Arc<RwLock<TlsAcceptor>>,
}

impl Tls {
    /// # Errors
    /// When a file cannot be read, holds no certificate or key, or the two do not belong together.
    pub fn open(files: &TlsFiles) -> anyhow::Result<Self> {
        let current = Arc::new(RwLock::new(acceptor(files)?));
        Ok(Self { files: Arc::new(files.clone()), current })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().expect("nothing panics under this lock").clone()
    }

    /// Reloads changed files until `stop`. An invalid new pair is ignored.
    pub async fn renew(self, stop: CancellationToken) {
        let mut seen = ages(&self.files);
        loop {
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(PERIOD) => {} }
            let now = ages(&self.files);
            if now == seen {
                continue;
            }
            seen = now;
            match acceptor(&self.files) {
                Ok(acceptor) => {
                    *self.current.write().expect("nothing panics under this lock") = acceptor;
                    info!("the certificate was reloaded");
                }
                Err(error) => warn!(error = format!("{error:#}"), "the changed certificate is not used"),
            }
        }
    }
}

fn ages(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    [&files.cert, &files.key].map(|path| std::fs::metadata(path).and_then(|about| about.modified()).ok())
}

fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let certificates = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| {
        anyhow::anyhow!("http.tls_key: no private key can be read from {}: {error}", files.key.display())
    })?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("http.tls_cert and http.tls_key cannot be used together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let refused = |error| anyhow::anyhow!("http.tls_cert: no certificate can be read from {}: {error}", path.display());
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(refused)?.collect();
    let found = found.map_err(refused)?;
    anyhow::ensure!(!found.is_empty(), "http.tls_cert: {} holds no certificate", path.display());
    Ok(found)
}
