//! Judges credentials off the shards: passwords are hashed on threads of their own, only so many at a time and with a bounded
//! queue, so that whoever tries passwords costs nobody else a message.

pub mod command;
pub mod devices;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod hook;
pub mod operators;
pub mod passwords;
pub mod reload;
pub mod tokens;
mod user_back_off;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bugle_core::hub::{AuthenticationRequest, Judgement};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::file_mode::{Holds, warn_if_open};
use crate::metrics::ProcessCounters;
use crate::shard_thread::Control;
use hook::Hook;
use passwords::PasswordFile;
use tokens::TokenKeys;
use user_back_off::UserBackOff;

/// Passwords that wait to be looked at; who comes then is told to try again.
const WAITING: usize = 512;
/// Tries that wait at a time because many for the same user were wrong; more wouldn't wait.
const DELAYED: usize = 1024;
/// How long one may wait: by then the hub has refused its client.
const PATIENCE: Duration = Duration::from_secs(10);

/// A credential, and where the verdict goes.
struct Job {
    request: AuthenticationRequest,
    /// Where it comes from, as long as that is known.
    address: Option<IpAddr>,
    shard: mpsc::Sender<Control>,
    asked: Instant,
    /// Its place among those that wait.
    place: OwnedSemaphorePermit,
}

/// The way to have a credential judged.
#[derive(Clone)]
pub struct Authenticator {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<Semaphore>,
}

impl Authenticator {
    /// Has a credential judged; the verdict goes to its shard. If too many wait, it is given back.
    pub fn try_judge(
        &self,
        request: AuthenticationRequest,
        address: Option<IpAddr>,
        shard: &mpsc::Sender<Control>,
    ) -> Result<(), AuthenticationRequest> {
        let Ok(place) = self.waiting.clone().try_acquire_owned() else { return Err(request) };
        let job = Job { request, address, shard: shard.clone(), asked: Instant::now(), place };
        self.jobs.try_send(job).map_err(|refused| refused.into_inner().request)
    }
}

/// What credentials are held against.
#[derive(Debug, Default)]
pub struct Known {
    /// Users with passwords.
    pub passwords: PasswordFile,
    /// Keys of tokens, if these are taken.
    pub tokens: Option<TokenKeys>,
}

/// Who judges a credential.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tokens,
    Passwords,
    Hook,
}

impl Known {
    fn by(&self, request: &AuthenticationRequest, has_hook: bool) -> By {
        if self.tokens.is_some() && TokenKeys::is_token(&request.password) {
            By::Tokens
        } else if has_hook && !self.passwords.has(&request.user) {
            By::Hook
        } else {
            By::Passwords
        }
    }

    fn judge(&self, request: &AuthenticationRequest, by: By) -> Judgement {
        match (&self.tokens, by) {
            (Some(tokens), By::Tokens) => tokens.judge(request),
            _ => self.passwords.judge(request),
        }
    }
}

/// The judge's end: what is known now, and what is to be judged.
pub struct Judge {
    known: Arc<ArcSwap<Known>>,
    hook: Option<Arc<Hook>>,
    jobs: mpsc::Receiver<Job>,
    waiting: Arc<Semaphore>,
    counters: Arc<ProcessCounters>,
}

/// A judge with what is known, which may be replaced while it runs, and the way to it.
pub fn judge(
    known: Arc<ArcSwap<Known>>,
    hook: Option<Hook>,
    counters: Arc<ProcessCounters>,
) -> (Authenticator, Judge) {
    let (sender, jobs) = mpsc::channel(WAITING);
    let waiting = Arc::new(Semaphore::new(WAITING));
    let judge = Judge { known, hook: hook.map(Arc::new), jobs, waiting: waiting.clone(), counters };
    (Authenticator { jobs: sender, waiting }, judge)
}

impl Judge {
    /// Judges until nobody asks any more.
    pub async fn run(mut self) {
        // Half of the cores stay for messages, whoever tries passwords.
        let cores = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        let places = Arc::new(Semaphore::new(cores));
        let (users, delays) = (Arc::new(UserBackOff::default()), Arc::new(Semaphore::new(DELAYED)));
        // Bounded by the places among those that wait, and those that are delayed, of which each holds one.
        while let Some(Job { request, address, shard, asked, mut place }) = self.jobs.recv().await {
            let delay = if users.has_to_wait(&request.user, address, Instant::now()) {
                delays.clone().try_acquire_owned().ok()
            } else {
                None
            };
            let (users, waiting) = (users.clone(), self.waiting.clone());
            if delay.is_some() {
                self.counters.waited();
            }
            let (known, places, hook) = (self.known.load_full(), places.clone(), self.hook.clone());
            tokio::spawn(async move {
                let (key, user) = (request.key, request.user.clone());
                if let Some(_delay) = delay {
                    // Others have its place meanwhile.
                    drop(place);
                    sleep(user_back_off::WAIT).await;
                    let Ok(again) = waiting.acquire_owned().await else { return };
                    place = again;
                }
                let judgement = match (known.by(&request, hook.is_some()), hook) {
                    (By::Hook, Some(hook)) => hook.judge(&request).await,
                    (by, _) => {
                        let Ok(_thread) = places.acquire().await else { return };
                        // Its client was refused meanwhile.
                        if asked.elapsed() >= PATIENCE {
                            return;
                        }
                        let judged = tokio::task::spawn_blocking(move || known.judge(&request, by)).await;
                        judged.unwrap_or(Judgement::Unavailable)
                    }
                };
                drop(place);
                match judgement {
                    Judgement::Good(_) | Judgement::GoodFor(..) => {
                        users.note(&user, address, true, Instant::now())
                    }
                    Judgement::Wrong => users.note(&user, address, false, Instant::now()),
                    Judgement::NotThisClient | Judgement::Unavailable => {}
                }
                // A shard that has ended has nobody to let in.
                let _ = shard.send(Control::Authenticated(key, judgement)).await;
            });
        }
    }
}

/// What comes after the first fields of a line: `clients=a,b` and `roles=x,y`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Extras {
    clients: Vec<String>,
    roles: Vec<String>,
}

impl Extras {
    fn parse<'t>(fields: impl Iterator<Item = &'t str>) -> Result<Self, String> {
        let mut extras = Self::default();
        for field in fields {
            let list = match field.split_once('=') {
                Some(("clients", _)) => &mut extras.clients,
                Some(("roles", _)) => &mut extras.roles,
                _ => return Err(format!("'{field}' is neither clients=... nor roles=...")),
            };
            let values = field.split_once('=').map_or("", |(_, values)| values).split(',');
            list.extend(values.filter(|value| !value.is_empty()).map(str::to_owned));
        }
        Ok(extras)
    }

    /// As it stands in a line, with a colon before each.
    fn text(&self) -> String {
        let fields = [("clients", &self.clients), ("roles", &self.roles)];
        let present = fields.iter().filter(|(_, values)| !values.is_empty());
        present.map(|(name, values)| format!(":{name}={}", values.join(","))).collect()
    }
}

/// The lines of a file that say something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// A file with secrets in it, whose text isn't left in memory.
fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    warn_if_open(path, Holds::Secrets);
    Ok(Zeroizing::new(text))
}
