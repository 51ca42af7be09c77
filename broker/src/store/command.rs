//! `bugle store`: a backup of a store that may be in use, and whether a file is a sound store.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::open::{Fault, fault_of};
use super::rows::{MESSAGE_COLUMNS, ReadError, read_message};
use super::schema;
use super::settings::DATABASE;
use crate::cli::{StoreBackupOptions, StoreCommand, StoreVerifyOptions};

/// Faults of one kind that are told one by one.
const TOLD: usize = 20;
/// How long a gateway that has the store for itself is waited for: it does so only for moments.
const BUSY: Duration = Duration::from_secs(10);

/// Why the command could not be carried out.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("{path} is there already: a backup never replaces a file")]
    Exists { path: PathBuf },
    #[error("there is no store in {path}: give the directory that the gateway has as --data-dir")]
    NoStore { path: PathBuf },
    #[error("{path}: {source}")]
    System { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("{path} is a database, but no store of bugle's")]
    Foreign { path: PathBuf },
    #[error(
        "{path} has version {found} of the store's tables, which a newer bugle has written: verify it with that one"
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("{path} is empty: there is nothing in it to be sound")]
    Empty { path: PathBuf },
}

/// Runs it.
pub fn run(command: &StoreCommand) -> ExitCode {
    let done = match command {
        StoreCommand::Backup(options) => backup(options).map(|()| ExitCode::SUCCESS),
        StoreCommand::Verify(options) => verify(options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("bugle store: {error}");
        ExitCode::from(2)
    })
}

/// A copy of everything that is committed at this moment. It is whole when it has its name, and on the disk then.
fn backup(options: &StoreBackupOptions) -> Result<(), CommandError> {
    let (from, to) = (options.data_dir.join(DATABASE), &options.file);
    if !from.exists() {
        return Err(CommandError::NoStore { path: options.data_dir.clone() });
    }
    if to.exists() {
        return Err(CommandError::Exists { path: to.clone() });
    }
    let sqlite = |source| CommandError::Sqlite { path: from.clone(), source };
    let connection = open_readable(&from)?;
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let system = |source| CommandError::System { path: part.clone(), source };
    match std::fs::remove_file(&part) {
        // One that was interrupted left it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(error)),
        _ => {}
    }
    let copied = connection.execute("VACUUM INTO ?1", [part.to_string_lossy()]).map_err(sqlite);
    let placed = copied.and_then(|_| {
        File::open(&part).and_then(|file| file.sync_all()).map_err(system)?;
        std::fs::rename(&part, to).map_err(system)?;
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(system)
    });
    if placed.is_err() {
        // What is half a backup is none.
        let _ = std::fs::remove_file(&part);
    }
    placed?;
    let bytes = std::fs::metadata(to).map_or(0, |metadata| metadata.len());
    say(&format!("{}: {bytes} bytes", to.display()));
    Ok(())
}

/// A connection that a running gateway doesn't mind.
fn open_readable(path: &Path) -> Result<Connection, CommandError> {
    let sqlite = |source| CommandError::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    match fault_of(&connection).map_err(sqlite)? {
        Some(Fault::Foreign) => Err(CommandError::Foreign { path: path.to_owned() }),
        Some(Fault::Newer(found)) => Err(CommandError::Newer { path: path.to_owned(), found }),
        None => Ok(connection),
    }
}

fn verify(options: &StoreVerifyOptions) -> Result<ExitCode, CommandError> {
    let path = &options.file;
    if !path.exists() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(CommandError::System { path: path.clone(), source });
    }
    let sqlite = |source| CommandError::Sqlite { path: path.clone(), source };
    let connection = open_readable(path)?;
    let version = schema::version(&connection).map_err(sqlite)?;
    if version == 0 {
        return Err(CommandError::Empty { path: path.clone() });
    }
    let Verified { counts, faults } = examine(&connection).map_err(sqlite)?;
    say(&format!("{}: version {version} of {}", path.display(), schema::VERSION));
    counts.iter().for_each(|(what, count)| say(&format!("  {what:<24} {count}")));
    faults.iter().for_each(|fault| say(&format!("  FAULT: {fault}")));
    say(if faults.is_empty() { "sound" } else { "not sound" });
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is in a store, and what is wrong with it.
pub struct Verified {
    /// How much of what.
    pub counts: Vec<(String, i64)>,
    /// What is wrong, in words for people.
    pub faults: Vec<String>,
}

/// Looks through all of a store.
pub fn examine(connection: &Connection) -> rusqlite::Result<Verified> {
    let mut faults = Vec::new();
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let found: String = row.get(0)?;
        if found != "ok" {
            faults.push(found);
        }
    }
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    for (sql, fault) in CHECKS {
        let found = count(sql)?;
        if found > 0 {
            faults.push(format!("{found} {fault}"));
        }
    }
    unreadable(connection, &mut faults)?;
    let mut counts = vec![
        ("clients with a queue".to_owned(), count("SELECT count(DISTINCT client) FROM queue")?),
        ("queued messages".to_owned(), count("SELECT count(*) FROM queue")?),
        ("of these in flight".to_owned(), count("SELECT count(*) FROM queue WHERE packet_id IS NOT NULL")?),
        ("messages".to_owned(), count("SELECT count(*) FROM message")?),
        ("retained messages".to_owned(), count("SELECT count(*) FROM retained")?),
    ];
    let mut statement = connection.prepare("SELECT kind, count(*) FROM record GROUP BY kind")?;
    let kinds = statement.query_map([], |row| {
        let kind = String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned();
        Ok((format!("records: {kind}"), row.get(1)?))
    })?;
    for kind in kinds {
        counts.push(kind?);
    }
    Ok(Verified { counts, faults })
}

/// Counts that have to be 0.
const CHECKS: [(&str, &str); 5] = [
    (
        "SELECT count(*) FROM queue WHERE client NOT IN (SELECT id FROM client)",
        "places in queues of a client that has no name",
    ),
    (
        "SELECT count(*) FROM queue WHERE message NOT IN (SELECT number FROM message)",
        "places in queues whose message is not there",
    ),
    (
        "SELECT count(*) FROM message m LEFT JOIN (SELECT message, count(*) AS places FROM queue GROUP BY message) q \
         ON q.message = m.number WHERE m.waiting IS NOT q.places",
        "messages whose number of waiting places is wrong",
    ),
    ("SELECT count(*) FROM record WHERE NOT json_valid(value)", "records that aren't JSON"),
    ("SELECT count(*) FROM queue WHERE NOT json_valid(entry)", "places in queues whose entry isn't JSON"),
];

fn unreadable(connection: &Connection, faults: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("SELECT m.number, {MESSAGE_COLUMNS} FROM message m"))?;
    let mut rows = statement.query([])?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        match read_message(row, 1) {
            Ok(_) => {}
            Err(ReadError::Sqlite(error)) => return Err(error),
            Err(fault) => {
                found += 1;
                if found <= TOLD {
                    faults.push(format!("message {}: {fault}", row.get::<_, i64>(0)?));
                }
            }
        }
    }
    if found > TOLD {
        faults.push(format!("{} more such messages", found - TOLD));
    }
    Ok(())
}

/// Prints; whoever closed stdout doesn't want it.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
