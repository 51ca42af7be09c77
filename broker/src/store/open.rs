//! Opens the store of a data directory: locks it, looks whether it is whole, brings its tables up to date.
//!
//! A file that SQLite can't make sense of is moved aside, with its log, and a new one begun: a gateway that is up with nothing in
//! its store is worth more than one that is down, and what is in the file may be saved by hand. A file that is fine but not
//! this program's is never touched.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode};

use super::schema::{self, APPLICATION_ID, STEPS, VERSION};
use super::settings::StoreSettings;

/// The file that the process which uses a data directory has locked.
const LOCK: &str = "bugle.lock";
/// How long another process that has it is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// What SQLite keeps beside a database.
pub const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused it.
    #[error(
        "cannot use {path}: {source}. Name another directory with --data-dir, or give this one to the user that bugle runs as"
    )]
    System {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by another bugle{by}: stop that one, or name another directory with --data-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Which process, if that is known.
        by: String,
    },
    /// It belongs to another program.
    #[error(
        "{path} is a database of another program: bugle leaves it alone. Name another directory with --data-dir"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this program has written it.
    #[error(
        "{path} has version {found} of the store's tables, and this bugle knows them up to {VERSION}: use the newer bugle, or a backup that an older one made"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite refused it.
    #[error("cannot open the store {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// An open store.
#[derive(Debug)]
pub struct Database {
    /// The one connection that writes.
    pub connection: Connection,
    /// Pages in the log after the last commit.
    pub log_pages: Arc<AtomicU32>,
    /// Where the store is that could not be read, if that was so.
    pub quarantined: Option<PathBuf>,
    _lock: File,
}

impl Database {
    /// Opens the store of `settings`, or makes one.
    pub fn open(settings: &StoreSettings) -> Result<Self, OpenError> {
        let directory = &settings.directory;
        let system = |source| OpenError::System { path: directory.clone(), source };
        create(directory).map_err(system)?;
        let lock = lock(directory)?;
        let path = settings.database();
        let (mut connection, quarantined) = match open_whole(settings) {
            Ok(connection) => (connection, None),
            Err(OpenError::Sqlite { source, .. }) if is_corrupt(&source) => {
                let aside =
                    quarantine(&path).map_err(|source| OpenError::System { path: path.clone(), source })?;
                tracing::error!(
                    path = %path.display(), moved_to = %aside.display(), error = %source,
                    "the store is corrupt: it was moved aside, and an empty one takes its place. Sessions, queued and retained \
                     messages of before are not served"
                );
                (open_whole(settings)?, Some(aside))
            }
            Err(error) => return Err(error),
        };
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };
        schema::migrate(&mut connection, STEPS).map_err(failed)?;
        let log_pages = Arc::new(AtomicU32::new(0));
        let pages = log_pages.clone();
        connection
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
                pages.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(failed)?;
        Ok(Self { connection, log_pages, quarantined, _lock: lock })
    }
}

/// Makes a directory that others can't look into: messages are in it.
fn create(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory)
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let system = |source| OpenError::System { path: path.clone(), source };
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(system)?;
    let begun = Instant::now();
    match try_lock_for(&file, PATIENCE, begun) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // It is only for the message.
            let _ = Read::by_ref(&mut file).take(16).read_to_string(&mut text);
            let by = text.trim().parse::<u32>().map(|id| format!(" (process {id})")).unwrap_or_default();
            return Err(OpenError::InUse { path: directory.to_owned(), by });
        }
        Err(TryLockError::Error(source)) => return Err(system(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(system)?;
    writeln!(file, "{}", std::process::id()).map_err(system)?;
    Ok(file)
}

/// A gateway that was just killed may not quite have ended.
fn try_lock_for(file: &File, patience: Duration, begun: Instant) -> Result<(), TryLockError> {
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// A connection to a file that is whole, and this program's or empty.
fn open_whole(settings: &StoreSettings) -> Result<Connection, OpenError> {
    let path = settings.database();
    let failed = |source| OpenError::Sqlite { path: path.clone(), source };
    let connection = Connection::open(&path).map_err(failed)?;
    if let Some(fault) = fault_of(&connection).map_err(failed)? {
        return Err(match fault {
            Fault::Foreign => OpenError::Foreign { path },
            Fault::Newer(found) => OpenError::Newer { path, found },
        });
    }
    schema::set_up(&connection, settings).map_err(failed)?;
    check(&connection, "quick_check").map_err(failed)?;
    Ok(connection)
}

/// What makes a sound file none of this program's.
pub enum Fault {
    /// It is another program's.
    Foreign,
    /// It is a later version's: this one.
    Newer(i64),
}

/// Whether a file is none of this program's.
pub fn fault_of(connection: &Connection) -> rusqlite::Result<Option<Fault>> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = schema::version(connection)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_new = (application, version, tables) == (0, 0, 0);
    Ok(if application != APPLICATION_ID && !is_new {
        Some(Fault::Foreign)
    } else if version > VERSION as i64 {
        Some(Fault::Newer(version))
    } else {
        None
    })
}

/// Runs one of SQLite's checks; what it finds is an error.
pub fn check(connection: &Connection, pragma: &str) -> rusqlite::Result<()> {
    let found: String = connection.query_row(&format!("PRAGMA {pragma}(1)"), [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            Err(rusqlite::Error::SqliteFailure(corrupt, Some(found)))
        }
    }
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Moves a database with its companions aside, under names that SQLite finds together. Where it is then.
fn quarantine(path: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let base = format!("{}.corrupt-{}", path.display(), utc(seconds));
    let mut aside = PathBuf::from(&base);
    for number in 2.. {
        if !aside.exists() {
            break;
        }
        aside = PathBuf::from(format!("{base}.{number}"));
    }
    std::fs::rename(path, &aside)?;
    for companion in COMPANIONS {
        let (from, to) =
            (format!("{}{companion}", path.display()), format!("{}{companion}", aside.display()));
        match std::fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// A moment as `20260131T235959Z`.
pub fn utc(seconds: u64) -> String {
    // Days since 1 March of year 0 make leap days come last in a year (proleptic Gregorian calendar).
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}
