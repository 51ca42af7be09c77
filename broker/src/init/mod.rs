//! `bugle init`: a folder with all that a gateway needs to be safe: an authority and a certificate, an operator, a user, a device, rules,
//! and a configuration that names them. What is there already is never touched, but by `--renew` the gateway's certificate.

mod certificates;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::authentication::command::new_secret;
use crate::authentication::{operators, passwords};
use crate::cli::InitOptions;

/// Something can't be made.
const FAILED: u8 = 2;
/// The first user and operator.
const ADMIN: &str = "admin";
/// The names of the files.
mod file {
    pub const CONFIG: &str = "bugle.toml";
    pub const RULES: &str = "rules.toml";
    pub const AUTHORITY: &str = "ca.pem";
    pub const AUTHORITY_KEY: &str = "ca.key";
    pub const CERTIFICATE: &str = "server.pem";
    pub const KEY: &str = "server.key";
    pub const PASSWORDS: &str = "passwords";
    pub const PASSWORD: &str = "admin-password";
    pub const DEVICES: &str = "devices";
    pub const OPERATORS: &str = "operators";
    pub const TOKEN: &str = "admin-token";
    pub const DATA: &str = "data";
    pub const AUDIT: &str = "audit.jsonl";
}

/// Makes the folder, or a new certificate in it.
pub fn run(options: &InitOptions) -> ExitCode {
    let done = if options.renew { renew(options) } else { make(options) };
    match done {
        Ok(text) => {
            // Who doesn't read it has the folder.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bugle init: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn make(options: &InitOptions) -> Result<String, String> {
    let folder = folder(&options.directory)?;
    let device = &options.device;
    if bugle_core::model::ClientId::new(device).is_none() || device.contains(':') {
        return Err(format!("'{device}' is no client id of 1-64 of A-Z a-z 0-9 . _ - for --device"));
    }
    let listen = options.listen.as_str();
    let port = options.port()?;
    let names = names(options);
    let authority = certificates::authority()?;
    let server = certificates::server(&names, &authority.certificate, &authority.key)?;
    let (password, token, secret) = (new_secret()?, new_secret()?, new_secret()?);
    let secret_file = format!("{device}.secret");
    let path = |name: &str| folder.join(name).display().to_string();
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let quoted_path = |name: &str| quoted(&path(name));
    let config = include_str!("bugle.toml")
        .replace("{config}", &path(file::CONFIG))
        .replace("{directory}", &folder.display().to_string())
        .replace("{local}", &quoted(&options.local))
        .replace("{admin}", &quoted(&options.admin))
        .replace("{listen}", &quoted(listen))
        .replace("{data}", &quoted_path(file::DATA))
        .replace("{passwords}", &quoted_path(file::PASSWORDS))
        .replace("{devices}", &quoted_path(file::DEVICES))
        .replace("{rules}", &quoted_path(file::RULES))
        .replace("{audit}", &quoted_path(file::AUDIT))
        .replace("{certificate}", &quoted_path(file::CERTIFICATE))
        .replace("{until}", &server.until)
        .replace("{key}", &quoted_path(file::KEY))
        .replace("{ca}", &quoted_path(file::AUTHORITY))
        .replace("{operators}", &quoted_path(file::OPERATORS))
        .replace("{token}", &quoted_path(file::TOKEN));
    let hash = passwords::hash(password.as_bytes())?;
    let files = [
        (file::AUTHORITY, authority.certificate),
        (file::AUTHORITY_KEY, authority.key),
        (file::CERTIFICATE, server.certificate),
        (file::KEY, server.key),
        (file::PASSWORD, format!("{password}\n")),
        (file::PASSWORDS, format!("# Users: bugle passwd\n{ADMIN}:{hash}:roles=operator\n")),
        (file::TOKEN, format!("{token}\n")),
        (
            file::OPERATORS,
            format!("# Operators: bugle operator add\n{}\n", operators::line(ADMIN, &token, false)),
        ),
        (&secret_file, format!("{secret}\n")),
        (file::DEVICES, format!("# Devices: bugle device add\n{device}:{secret}:roles=device\n")),
        (file::RULES, include_str!("rules.toml").to_owned()),
        // Last, so that a folder with a configuration has all of it.
        (file::CONFIG, config),
    ];
    let there: Vec<&str> = files
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| folder.join(name).symlink_metadata().is_ok())
        .collect();
    if !there.is_empty() {
        return Err(format!(
            "{} has {} already, and nothing is overwritten: choose another folder, or move them away",
            folder.display(),
            there.join(", ")
        ));
    }
    for (name, text) in &files {
        write_new(&folder.join(name), text)?;
    }
    Ok(next_steps(&folder, options, &names, port, &server.until))
}

/// A new certificate of the gateway, by the authority that is there.
fn renew(options: &InitOptions) -> Result<String, String> {
    let folder = folder(&options.directory)?;
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let names = names(options);
    let pair = certificates::server(&names, &read(file::AUTHORITY)?, &read(file::AUTHORITY_KEY)?)?;
    // The key first: between the two the gateway finds a pair that doesn't fit, and keeps the old one.
    for (name, text) in [(file::KEY, &pair.key), (file::CERTIFICATE, &pair.certificate)] {
        let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", new.display()));
            }
            _ => {}
        }
        write_new(&new, text)?;
        std::fs::rename(&new, &path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(format!(
        "{} is for {}, and good until {}. A running gateway takes it by itself, or on SIGHUP.\n",
        folder.join(file::CERTIFICATE).display(),
        names.join(", "),
        pair.until
    ))
}

/// The folder, made if it isn't there, with its whole path: the configuration is to work from everywhere.
fn folder(directory: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", directory.display());
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(failed)?;
    let whole = directory.canonicalize().map_err(failed)?;
    if whole.to_str().is_none() {
        return Err(format!("{} can't be written into a configuration, which is UTF-8", whole.display()));
    }
    Ok(whole)
}

/// What the certificate is for: what is asked for, and always this machine.
fn names(options: &InitOptions) -> Vec<String> {
    let mut names = options.names.clone();
    for own in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|name| name == own) {
            names.push(own.to_owned());
        }
    }
    names
}

/// A file for its owner alone, which must not be there.
fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file: File| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn next_steps(folder: &Path, options: &InitOptions, names: &[String], port: u16, until: &str) -> String {
    let path = |name: &str| shell_word(&folder.join(name).display().to_string());
    let (config, ca, password) = (path(file::CONFIG), path(file::AUTHORITY), path(file::PASSWORD));
    let (device, host) = (&options.device, names.first().map_or("localhost", String::as_str));
    let local = if options.local == "127.0.0.1:1883" {
        String::new()
    } else {
        format!(" --server {}", options.local)
    };
    let secret = path(&format!("{device}.secret"));
    format!(
        "{folder} is ready. Its certificate is for {names}, and good until {until}.\n\
         \n\
         Run the gateway:\n  \
           bugle serve --config {config}\n\
         \n\
         In another terminal, be the device {device}, which proves its secret without sending it:\n  \
           bugle watch{local} --as {device} --secret-file {secret} --group demo\n\
         \n\
         Command it as the user {ADMIN}, over TLS:\n  \
           mosquitto_pub --cafile {ca} -h {host} -p {port} -u {ADMIN} -P \"$(cat {password})\" -i {ADMIN} -q 1 -t sig/g/demo -m hello\n\
         \n\
         See and moderate clients as the operator {ADMIN}:\n  \
           bugle clients --config {config}\n\
         \n\
         Others need {ca} to know the gateway by. Keep ca.key to yourself: it is for further certificates alone, and needn't be\n\
         on the gateway. admin-password, admin-token and {device}.secret are for those who use them; move them there.\n",
        folder = folder.display(),
        names = names.join(", "),
    )
}

/// As a shell takes it for one word.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@,%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(shell_word("/etc/bugle-1/ca.pem"), "/etc/bugle-1/ca.pem");
        assert_eq!(shell_word("/a b/it's $x"), "'/a b/it'\\''s $x'");
    }

    #[test]
    fn the_rules_that_are_made_let_devices_do_their_part_and_no_more() {
        use bugle_core::rules::{Action, Actor, Object, decide};
        let folder = std::env::temp_dir().join(format!("bugle-init-rules-{}", std::process::id()));
        std::fs::write(&folder, include_str!("rules.toml")).unwrap();
        let place = crate::config::RulesPlace { path: folder.clone(), is_config: false, authenticates: true };
        let rules = place.load().unwrap();
        std::fs::remove_file(&folder).unwrap();
        let principal = |role: &str| bugle_core::model::Principal {
            roles: vec![role.into()],
            ..bugle_core::model::Principal::user("device-1")
        };
        let may = |role: &str, action, object| {
            let principal = principal(role);
            decide(Actor { client: "device-1", principal: &principal }, action, object, &rules).allowed
        };
        for (action, object) in [
            (Action::Connect, Object::Gateway),
            (Action::Join, Object::Group("demo")),
            (Action::Send, Object::Group("demo")),
            (Action::Receive, Object::Group("demo")),
            (Action::Receive, Object::Client("admin")),
            (Action::Publish, Object::Topic("devices/device-1/state")),
        ] {
            assert!(may("device", action, object) && may("operator", action, object), "{action:?}");
            assert!(!may("nobody", action, object), "{action:?}");
        }
        for (action, object) in [
            (Action::Send, Object::Client("device-2")),
            (Action::Publish, Object::Topic("devices/device-2/state")),
            (Action::Subscribe, Object::Topic("#")),
            (Action::Moderate, Object::Gateway),
            (Action::Observe, Object::Group("demo")),
        ] {
            assert!(!may("device", action, object) && may("operator", action, object), "{action:?}");
        }
    }
}
