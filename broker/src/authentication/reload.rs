//! Reads passwords and devices' secrets again, when their files change or SIGHUP asks for it. They hold for connections to
//! come; a file that can't be used changes nothing, and is told.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bugle_core::hub::{Credentials, SecretEntry};
use tokio::sync::Notify;

use super::passwords::PasswordFile;
use super::tokens::{TokenKeys, TokenSettings};
use super::{Known, devices};
use crate::file_watch::FileWatches;
use crate::reload_status::{BY_CHANGE, BY_SIGNAL, ReloadStatus, Reloadable};
use crate::shard_thread::{Control, ShardSender};

/// Where credentials come from.
#[derive(Clone)]
pub struct CredentialsPlace {
    /// Those of the configuration.
    pub fixed: Vec<SecretEntry>,
    /// The file of devices' secrets.
    pub devices: Option<PathBuf>,
    /// The password file.
    pub passwords: Option<PathBuf>,
    /// How tokens are looked at, if they are taken.
    pub tokens: Option<TokenSettings>,
    /// Clients can prove themselves otherwise, too: by certificates, or to the hook.
    pub has_others: bool,
}

impl CredentialsPlace {
    /// Whether clients have to prove who they are.
    pub fn authenticates(&self) -> bool {
        !self.fixed.is_empty()
            || self.devices.is_some()
            || self.passwords.is_some()
            || self.tokens.is_some()
            || self.has_others
    }

    /// All secrets, and whether others are to be asked for.
    pub fn load(&self) -> Result<Credentials, String> {
        if !self.authenticates() {
            return Ok(Credentials::open());
        }
        let devices = self.devices.as_deref().map(devices::load).transpose()?.unwrap_or_default();
        if let Some(twice) = devices.iter().find(|one| self.fixed.iter().any(|other| other.id == one.id)) {
            return Err(format!(
                "'{}' is in the devices' file and in the configuration: take one out",
                twice.id
            ));
        }
        let credentials = Credentials::from_entries(self.fixed.iter().cloned().chain(devices));
        // Where there are no secrets yet, nobody is let in for that.
        let asks =
            self.passwords.is_some() || self.devices.is_some() || self.tokens.is_some() || self.has_others;
        Ok(if asks { credentials.and_ask() } else { credentials })
    }

    /// What credentials are held against that the shards can't judge.
    pub fn load_known(&self) -> Result<Known, String> {
        Ok(Known {
            passwords: self.passwords.as_deref().map(PasswordFile::load).transpose()?.unwrap_or_default(),
            tokens: self.tokens.as_ref().map(TokenKeys::load).transpose()?,
        })
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let keys = self.tokens.iter().flat_map(|tokens| &tokens.keys);
        self.devices.iter().chain(&self.passwords).chain(keys)
    }

    /// Whether something of it is in files.
    pub fn has_files(&self) -> bool {
        self.files().next().is_some()
    }
}

/// What reads them again.
pub struct CredentialsReload {
    place: CredentialsPlace,
    known: Arc<ArcSwap<Known>>,
    shards: Vec<ShardSender>,
    status: Arc<ReloadStatus>,
    watches: FileWatches,
}

impl CredentialsReload {
    /// For what was read just now.
    pub fn new(
        place: CredentialsPlace,
        known: Arc<ArcSwap<Known>>,
        shards: Vec<ShardSender>,
        status: Arc<ReloadStatus>,
    ) -> Self {
        let watches = FileWatches::new(place.files().cloned());
        Self { place, known, shards, status, watches }
    }

    /// Looks at the files, and reads them when one has changed or when asked to.
    pub async fn run(mut self, asked: Arc<Notify>) {
        loop {
            let look = self.watches.next(&asked).await;
            if look.is_asked || look.has_changed {
                self.reload(if look.is_asked { BY_SIGNAL } else { BY_CHANGE }).await;
            }
        }
    }

    async fn reload(&self, by: &str) {
        let place = self.place.clone();
        // Making a hash that fits nobody takes a while.
        let read = tokio::task::spawn_blocking(move || Ok((place.load()?, place.load_known()?))).await;
        let (credentials, known) = match read.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(error, "passwords and devices stay as they are");
                return self.status.set(Reloadable::Credentials, by, Some(error));
            }
        };
        let users = known.passwords.len();
        self.known.store(Arc::new(known));
        let credentials = Arc::new(credentials);
        for shard in &self.shards {
            // A shard that has ended lets nobody in.
            let _ = shard.control.send(Control::Credentials(credentials.clone())).await;
        }
        self.status.set(Reloadable::Credentials, by, None);
        tracing::info!(users, secrets = ?credentials, "passwords and devices were read again, and hold for new connections");
    }
}
