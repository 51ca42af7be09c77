//! `bugle passwd`, `bugle device add` and `bugle operator add`: lines of the files that the gateway reads.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use bugle_core::model::ClientId;

use super::operators::{self, OperatorFile};
use super::passwords::{MAX_PASSWORD, check_name, hash};
use super::{Extras, devices, lines};
use crate::cli::{DeviceAddOptions, OperatorAddOptions, PasswdOptions};

/// A file or an option can't be used.
const MISUSED: u8 = 2;

/// Sets or deletes a user's password.
pub fn passwd(options: &PasswdOptions) -> ExitCode {
    report(set_password(options))
}

/// Makes a secret for a device, and prints it.
pub fn device_add(options: &DeviceAddOptions) -> ExitCode {
    report(add_device(options))
}

/// Makes a token for an operator, and prints it.
pub fn operator_add(options: &OperatorAddOptions) -> ExitCode {
    report(add_operator(options))
}

fn report(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bugle: {error}");
            ExitCode::from(MISUSED)
        }
    }
}

fn set_password(options: &PasswdOptions) -> Result<(), String> {
    check_name(&options.user)?;
    let extras = Extras { clients: options.clients.clone(), roles: options.roles.clone() };
    check_extras(&extras)?;
    let line = if options.delete {
        None
    } else {
        let password = password(&options.user)?;
        Some(format!("{}:{}{}", options.user, hash(password.as_bytes())?, extras.text()))
    };
    if !set_line(&options.file, &options.user, line.as_deref())? && options.delete {
        return Err(format!("there is no user '{}' in {}", options.user, options.file.display()));
    }
    Ok(())
}

fn add_device(options: &DeviceAddOptions) -> Result<(), String> {
    if ClientId::new(&options.id).is_none() || options.id.contains(':') {
        return Err(format!("'{}' is no client id of 1-64 of A-Z a-z 0-9 . _ -", options.id));
    }
    let extras = Extras { clients: Vec::new(), roles: options.roles.clone() };
    check_extras(&extras)?;
    if options.file.exists() {
        let known = devices::load(&options.file)?;
        if !options.replace && known.iter().any(|entry| entry.id == options.id) {
            let path = options.file.display();
            return Err(format!(
                "'{}' has a secret in {path} already; --replace makes a new one",
                options.id
            ));
        }
    }
    let secret = new_secret()?;
    set_line(&options.file, &options.id, Some(&format!("{}:{secret}{}", options.id, extras.text())))?;
    println!("{secret}");
    Ok(())
}

fn add_operator(options: &OperatorAddOptions) -> Result<(), String> {
    operators::check_name(&options.name)?;
    if options.file.exists() {
        let known = OperatorFile::load(&options.file)?;
        if !options.replace && known.has(&options.name) {
            let path = options.file.display();
            return Err(format!(
                "'{}' has a token in {path} already; --replace makes a new one",
                options.name
            ));
        }
    }
    let token = new_secret()?;
    set_line(&options.file, &options.name, Some(&operators::line(&options.name, &token, options.viewer)))?;
    println!("{token}");
    Ok(())
}

/// Something that nobody guesses: 120 random bits.
pub fn new_secret() -> Result<String, String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    // Letters and digits alone: it goes into configurations of all kinds.
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

fn check_extras(extras: &Extras) -> Result<(), String> {
    let wrong = extras
        .clients
        .iter()
        .chain(&extras.roles)
        .find(|value| value.is_empty() || value.contains([':', ',', '=', '\n', '\r']));
    wrong.map_or(Ok(()), |value| {
        Err(format!("'{value}' can't be in a line: no ':', ',' and '=' in it, please"))
    })
}

/// The password from the terminal, unseen, or from the first line of standard input.
fn password(user: &str) -> Result<String, String> {
    let stdin = std::io::stdin();
    let password = if stdin.is_terminal() {
        let ask = |text: String| rpassword::prompt_password(text).map_err(|error| error.to_string());
        let password = ask(format!("Password for {user}: "))?;
        if ask("Again: ".to_owned())? != password {
            return Err("the two are not the same".to_owned());
        }
        password
    } else {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(|error| format!("cannot read the password: {error}"))?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    if password.is_empty() || password.len() > MAX_PASSWORD {
        return Err(format!("a password has 1 to {MAX_PASSWORD} bytes"));
    }
    Ok(password)
}

/// Puts a line for a name in the place of the one that is there, or behind the others; without a line, takes it out. Whether
/// there was one. At no moment is the file half there, and nobody else may read it.
fn set_line(path: &Path, name: &str, line: Option<&str>) -> Result<bool, String> {
    let failed = |what: &str, error: std::io::Error| format!("cannot {what} {}: {error}", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("read", error)),
    };
    let is_its = |text: &str| lines(text).any(|(_, line)| line.split(':').next() == Some(name));
    let mut was_there = false;
    let mut out = String::new();
    for old in text.lines() {
        let kept = if is_its(old) {
            let first = !std::mem::replace(&mut was_there, true);
            line.filter(|_| first)
        } else {
            Some(old)
        };
        out.extend(kept.into_iter().flat_map(|line| [line, "\n"]));
    }
    if !was_there {
        out.extend(line.into_iter().flat_map(|line| [line, "\n"]));
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let written = create(Path::new(&new)).and_then(|mut file| {
        file.write_all(out.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    });
    written.map_err(|error| failed("write", error))?;
    Ok(was_there)
}

fn create(path: &Path) -> std::io::Result<File> {
    // What an interrupted run left.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
