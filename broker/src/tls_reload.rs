//! Reads certificates, keys, authorities and revocations again, when one of their files changes or SIGHUP asks for it.
//!
//! They hold for connections to come; those that are there go on. A certificate and its key are two files, and are never
//! replaced at once: files that have changed are read when they have been the same for a look. What can't be used changes nothing, and
//! is told.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::admin::AdminTls;
use crate::file_watch::FileWatches;
use crate::reload_status::{BY_CHANGE, BY_SIGNAL, ReloadStatus, Reloadable};
use crate::transport::tls::{TlsEndpoint, TlsFiles};

/// What reads them again.
pub struct TlsReload {
    files: TlsFiles,
    endpoints: Vec<Arc<TlsEndpoint>>,
    /// That of the admin port, if it has one.
    admin: Option<Arc<AdminTls>>,
    status: Arc<ReloadStatus>,
    watches: FileWatches,
}

impl TlsReload {
    /// For files that were read just now, and whoever uses what is in them.
    pub fn new(
        files: TlsFiles,
        endpoints: Vec<Arc<TlsEndpoint>>,
        admin: Option<Arc<AdminTls>>,
        status: Arc<ReloadStatus>,
    ) -> Self {
        let watches = FileWatches::new(files.paths().cloned());
        Self { files, endpoints, admin, status, watches }
    }

    /// Looks at the files, and reads them when they have changed or when asked to.
    pub async fn run(mut self, asked: Arc<Notify>) {
        let mut is_changing = false;
        loop {
            let look = self.watches.next(&asked).await;
            if look.is_asked {
                self.reload(BY_SIGNAL);
            } else if is_changing && !look.has_changed {
                self.reload(BY_CHANGE);
            }
            is_changing = look.has_changed && !look.is_asked;
        }
    }

    fn reload(&self, by: &str) {
        let loaded = self.files.load().and_then(|config| {
            let of_admin = self.admin.as_ref().map(|_| self.files.load_for_operators()).transpose()?;
            Ok((config, self.admin.as_ref().zip(of_admin)))
        });
        match loaded {
            Ok((config, admin)) => {
                self.endpoints.iter().for_each(|endpoint| endpoint.replace(&config));
                if let Some((admin, config)) = admin {
                    admin.replace(config);
                }
                self.status.set(Reloadable::Certificates, by, None);
                tracing::info!("certificates were read again, and hold for new connections");
            }
            Err(error) => {
                tracing::error!(%error, "the certificates stay as they are");
                self.status.set(Reloadable::Certificates, by, Some(error));
            }
        }
    }
}
