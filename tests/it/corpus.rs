//! What the fuzz targets were fed with, and everything that they ever found, through the same properties: every seed whole, and
//! those by hand cut short at many places, too. Only memory is not measured here, where tests share a process.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod properties;

use properties::{PROPERTIES, named, unmeasured};

/// Where a corpus is.
fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

/// The seeds of a corpus by name.
fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(corpus(name)).unwrap();
    let mut seeds: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            (
                file.file_name().to_string_lossy().into_owned(),
                std::fs::read(file.path()).unwrap(),
            )
        })
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 10, "there are seeds for {name}");
    seeds
}

/// At how many places a seed is cut, at most.
const CUTS: usize = 100;

/// libFuzzer names what it comes upon by a hash.
fn is_made_by_hand(seed: &str) -> bool {
    seed.len() != 40 || !seed.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn replay(name: &str) {
    let property = named(name);
    for (seed, data) in seeds(name) {
        let cuts = if is_made_by_hand(&seed) { CUTS } else { 1 };
        let step = data.len().div_ceil(cuts).max(1);
        let cuts = (0..data.len()).step_by(step);
        for end in cuts.chain([data.len()]) {
            let outcome = std::panic::catch_unwind(|| property(&data[..end], unmeasured));
            assert!(outcome.is_ok(), "fuzz/corpus/{name}/{seed}, the first {end} bytes");
        }
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_corpus_and_is_replayed() {
            let known: Vec<&str> = PROPERTIES.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, [$(stringify!($name)),*]);
            let mut there: Vec<String> = std::fs::read_dir(corpus("")).unwrap().map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
            there.sort();
            assert_eq!(there, known);
        }
    };
}

replays! {
    configuration control_request headers jumpcloud_lists jumpcloud_records refusals token_answer torq_roles torq_users
}
