//! Environments as lists of `NAME=value`, merged as Docker merges them.
//!
//! Owner: pure. Invariant: time grows with the number of variables (times its logarithm), whatever
//! their names: a stranger's image chooses both. Source: moby's `ReplaceOrAppendEnvValues`.

use std::collections::BTreeMap;

/// Replaces by name, appends new names, removes names that come without `=`.
pub(super) fn merge_env(env: &mut Vec<String>, overrides: &[String]) {
    let mut merged: Vec<Option<String>> = std::mem::take(env).into_iter().map(Some).collect();
    let mut places = BTreeMap::new();
    for (place, entry) in merged.iter().enumerate() {
        let name = name_of(entry.as_deref().unwrap_or_default()).to_owned();
        places.entry(name).or_insert(place);
    }
    for entry in overrides {
        let name = name_of(entry);
        match (places.get(name).copied(), entry.contains('=')) {
            (Some(place), true) => merged[place] = Some(entry.clone()),
            (None, true) => {
                places.insert(name.to_owned(), merged.len());
                merged.push(Some(entry.clone()));
            }
            (Some(place), false) => {
                places.remove(name);
                merged[place] = None;
            }
            (None, false) => {}
        }
    }
    env.extend(merged.into_iter().flatten());
}

pub(super) fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image_config::bounds::MAX_VARIABLES;

    /// The same by trying each name against each: slow, and plainly right.
    fn one_by_one(env: &mut Vec<String>, overrides: &[String]) {
        for entry in overrides {
            let at = env
                .iter()
                .position(|known| name_of(known) == name_of(entry));
            match (at, entry.contains('=')) {
                (Some(index), true) => env[index].clone_from(entry),
                (None, true) => env.push(entry.clone()),
                (Some(index), false) => drop(env.remove(index)),
                (None, false) => {}
            }
        }
    }

    fn unique(entries: Vec<String>) -> Vec<String> {
        let mut seen = std::collections::BTreeSet::new();
        let is_new = |entry: &String| seen.insert(name_of(entry).to_owned());
        entries.into_iter().filter(is_new).collect()
    }

    proptest! {
        #[test]
        fn merging_is_what_one_by_one_gives(
            env in proptest::collection::vec("[a-c]{1,2}=[x-z]{0,2}", 0..8).prop_map(unique),
            overrides in proptest::collection::vec("[a-c]{1,2}(=[x-z]{0,2})?", 0..12),
        ) {
            let (mut merged, mut expected) = (env.clone(), env);
            merge_env(&mut merged, &overrides);
            one_by_one(&mut expected, &overrides);
            prop_assert_eq!(merged, expected);
        }
    }

    /// By trying each name against each this takes minutes.
    #[test]
    fn environments_far_beyond_the_bound_merge_at_once() {
        let many = |from: usize| -> Vec<String> {
            (from..from + 25 * MAX_VARIABLES)
                .map(|number| format!("{number}=x"))
                .collect()
        };
        let mut env = many(0);
        merge_env(&mut env, &many(25 * MAX_VARIABLES));
        assert_eq!(env.len(), 50 * MAX_VARIABLES);
    }
}
