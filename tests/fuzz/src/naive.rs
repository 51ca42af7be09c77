//! What the fast ways are held against: matching by the words of the standard, slowly.

/// Whether a topic filter, not a shared one, matches a topic name [MQTT 5, section 4.7].
pub fn filter_matches(filter: &str, name: &str) -> bool {
    let (filter, levels): (Vec<_>, Vec<_>) = (filter.split('/').collect(), name.split('/').collect());
    if name.starts_with('$') && ["#", "+"].contains(&filter[0]) {
        return false;
    }
    match filter.split_last() {
        Some((&"#", front)) => front.len() <= levels.len() && levels_match(front, &levels[..front.len()]),
        _ => filter.len() == levels.len() && levels_match(&filter, &levels),
    }
}

fn levels_match(filter: &[&str], levels: &[&str]) -> bool {
    filter.iter().zip(levels).all(|(wanted, level)| *wanted == "+" || wanted == level)
}

/// Whether `text` can be subscribed to, shared subscriptions aside.
pub fn is_filter(text: &str) -> bool {
    let levels: Vec<_> = text.split('/').collect();
    let last = levels.len() - 1;
    (1..=65_535).contains(&text.len())
        && !text.contains('\0')
        && levels.iter().enumerate().all(|(at, level)| match *level {
            "+" => true,
            "#" => at == last,
            level => !level.contains(['+', '#']),
        })
}

/// Whether `text` can be published to.
pub fn is_topic(text: &str) -> bool {
    (1..=65_535).contains(&text.len()) && !text.contains(['\0', '+', '#'])
}

/// Whether a pattern, in which `*` is any run of characters, matches all of `text`.
pub fn pattern_matches(pattern: &[u8], text: &[u8]) -> bool {
    // Row by row: which beginnings of the text the pattern so far matches.
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for &wanted in pattern {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match wanted {
                b'*' => row[at] || (at > 0 && next[at - 1]),
                byte => at > 0 && row[at - 1] && text[at - 1] == byte,
            };
        }
        row = next;
    }
    row[text.len()]
}

/// Topic names that tell any two of these filters apart: of their own levels and one that none has.
pub fn names_for(filters: &[&str], deepest: usize) -> Vec<String> {
    let mut levels: Vec<&str> = filters
        .iter()
        .flat_map(|filter| filter.split('/'))
        .filter(|level| !["+", "#"].contains(level))
        .collect();
    levels.sort_unstable();
    levels.dedup();
    levels.truncate(3);
    let other = ["x", "y", "z", "w"].into_iter().find(|other| !levels.contains(other));
    levels.extend(other);
    let mut names: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
    let mut longest = names.clone();
    for _ in 1..deepest {
        longest = longest
            .iter()
            .flat_map(|name| levels.iter().map(move |level| format!("{name}/{level}")))
            .collect();
        names.extend(longest.iter().cloned());
    }
    names.retain(|name| !name.is_empty());
    names
}
