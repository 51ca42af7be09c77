//! Any text as a configuration and as a rules file.

use super::{ConfigFile, RulesText, parse};

/// Reads a configuration and checks what can be checked without other files; what is printed of it has to come to the same.
pub fn configuration(text: &str) {
    let Ok(file) = parse(text) else { return };
    let printed = toml::to_string(&file).expect("what was read can be printed");
    let again = parse(&printed).unwrap_or_else(|error| panic!("{error} in {printed}"));
    assert_eq!(printed, toml::to_string(&again).expect("once more"), "printed and read again it is another");
    // Other files, and the keys of others, are no part of this.
    let file =
        ConfigFile { rules: None, passwords: None, devices: None, jwt: None, bridge: Vec::new(), ..file };
    let Err(error) = file.checked() else { return };
    assert!(!error.to_string().is_empty());
}

/// Reads a rules file; an error within it has its line.
pub fn rules_file(text: &str) {
    let Ok(rules) = RulesText::parse(text.to_owned()) else { return };
    for authenticates in [false, true] {
        if let Err(error) = rules.compile(authenticates) {
            let line =
                error.strip_prefix("line ").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
            let is_general = error.starts_with("clients have to prove themselves");
            assert!(is_general || line.is_some_and(|line| line <= text.lines().count()), "{error}");
        }
    }
}
