//! Who subscribed to what: topic filters as a tree of their levels.
//!
//! A publish walks only the branches that can match, so its cost depends on the topic's levels and on the
//! matches, not on how many filters there are.

use std::hash::Hash;

use crate::model::Map;

/// Most levels of a topic filter; deeper ones are refused, which bounds the walk's recursion.
pub const MAX_LEVELS: usize = 128;

/// Entries `K -> V` under topic filters.
#[derive(Debug)]
pub struct TopicTree<K, V> {
    root: Node<K, V>,
    /// Counts insertions and removals.
    changes: u64,
}

#[derive(Debug)]
struct Node<K, V> {
    /// The levels below, `+` among them.
    children: Map<Box<str>, Node<K, V>>,
    /// Filters that end here.
    here: Map<K, V>,
    /// Filters that end with `#` below here.
    below: Map<K, V>,
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self { children: Map::default(), here: Map::default(), below: Map::default() }
    }
}

impl<K, V> Node<K, V> {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.below.is_empty()
    }
}

impl<K, V> Default for TopicTree<K, V> {
    fn default() -> Self {
        Self { root: Node::default(), changes: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> TopicTree<K, V> {
    /// Puts `key` under a valid `filter` and gives back what it had there.
    pub fn insert(&mut self, filter: &str, key: K, value: V) -> Option<V> {
        self.changes += 1;
        let mut node = &mut self.root;
        for level in filter.split('/') {
            if level == "#" {
                return node.below.insert(key, value);
            }
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            // Inserted just above.
            node = node.children.get_mut(level)?;
        }
        node.here.insert(key, value)
    }

    /// Takes `key` from under `filter`, and the branches that this leaves empty.
    pub fn remove(&mut self, filter: &str, key: &K) -> Option<V> {
        fn remove<K: Copy + Eq + Hash, V>(node: &mut Node<K, V>, filter: Option<&str>, key: &K) -> Option<V> {
            let Some(filter) = filter else { return node.here.swap_remove(key) };
            if filter == "#" {
                return node.below.swap_remove(key);
            }
            let (level, rest) = match filter.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (filter, None),
            };
            let child = node.children.get_mut(level)?;
            let removed = remove(child, rest, key);
            if child.is_empty() {
                node.children.swap_remove(level);
            }
            removed
        }
        self.changes += 1;
        remove(&mut self.root, Some(filter), key)
    }

    /// How often it was changed: what was found in it holds as long as this stays the same.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Calls `each` for every entry whose filter matches the topic `name`; an entry with several matching
    /// filters comes several times. Leading wildcards leave out `$`-topics [MQTT-4.7.2-1].
    pub fn for_each_match<'a>(&'a self, name: &str, each: &mut dyn FnMut(&'a K, &'a V)) {
        let wildcards = !name.starts_with('$');
        walk(&self.root, Some(name), wildcards, each);
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

fn walk<'a, K, V>(
    node: &'a Node<K, V>,
    name: Option<&str>,
    wildcards: bool,
    each: &mut dyn FnMut(&'a K, &'a V),
) {
    // `a/#` matches `a` as well.
    if wildcards {
        node.below.iter().for_each(|(key, value)| each(key, value));
    }
    let Some(name) = name else {
        return node.here.iter().for_each(|(key, value)| each(key, value));
    };
    let (level, rest) = match name.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (name, None),
    };
    if let Some(child) = node.children.get(level) {
        walk(child, rest, true, each);
    }
    if wildcards && let Some(child) = node.children.get("+") {
        walk(child, rest, true, each);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::topic;

    proptest! {
        /// The tree matches what the reference matcher matches, also after removals.
        #[test]
        fn matches_like_the_reference(
            filters in prop::collection::vec("(\\$?[ab+]|#)(/[ab+]){0,2}(/#)?", 0..20),
            names in prop::collection::vec("\\$?[ab](/[ab]?){0,3}", 1..10),
            removed in prop::collection::vec(any::<bool>(), 20),
        ) {
            let filters: Vec<_> = filters.into_iter().filter(|f| topic::is_valid_filter(f)).collect();
            let mut tree = TopicTree::default();
            for (index, filter) in filters.iter().enumerate() {
                tree.insert(filter, index, ());
            }
            for (index, filter) in filters.iter().enumerate() {
                if removed[index] {
                    prop_assert_eq!(tree.remove(filter, &index), Some(()));
                }
            }
            for name in &names {
                let mut found = Vec::new();
                tree.for_each_match(name, &mut |key, ()| found.push(*key));
                found.sort_unstable();
                let expected: Vec<_> = (0..filters.len())
                    .filter(|&index| !removed[index] && topic::matches(&filters[index], name))
                    .collect();
                prop_assert_eq!(found, expected, "{}", name);
            }
            for (index, filter) in filters.iter().enumerate() {
                tree.remove(filter, &index);
            }
            prop_assert!(tree.is_empty(), "empty branches are pruned");
        }
    }
}
