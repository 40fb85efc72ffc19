//! Whether states can be kept where they are to be kept.

use std::path::Path;

use rustix::fs::Access;

use crate::state::{self, Room};

/// Less than this, and not even a small state can be kept.
const NO_ROOM: u64 = 4 << 20;
/// Less than this is soon too little: a state of 50,000 users, its log and a copy of it.
const LITTLE_ROOM: u64 = 256 << 20;

/// A folder in which states can be kept.
pub(super) struct Folder {
    pub(super) words: String,
    pub(super) notes: Vec<String>,
}

/// One in which they cannot.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) words: String,
    pub(super) action: &'static str,
}

/// Whether states can be kept in this folder, as far as that can be said without writing anything.
pub(super) fn state_folder(dir: &Path) -> Result<Folder, Unusable> {
    let shown = dir.display();
    // Those that are not there yet are made by the first run.
    let there = dir.ancestors().find(|one| !matches!(one.try_exists(), Ok(false)));
    let there = there.unwrap_or(dir);
    // Relative to nothing is where we are.
    let place = if there.as_os_str().is_empty() {
        Path::new(".")
    } else {
        there
    };
    let unusable = |words: String| Unusable {
        words,
        action: "run as root or as the user of the service, or set state_dir",
    };
    let usable = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::access(place, usable).map_err(std::io::Error::from) {
        Err(error) if place == dir => return Err(unusable(format!("{shown} cannot be used: {error}"))),
        Err(error) => {
            let words = format!("{shown} is not there and cannot be made: {}: {error}", place.display());
            return Err(unusable(words));
        }
        Ok(()) if !place.is_dir() => return Err(unusable(format!("{} is not a folder", place.display()))),
        Ok(()) => {}
    }
    let mut notes = Vec::from_iter(about_room(dir, state::room(place))?);
    let words = if place == dir {
        notes.extend(open_folder(dir));
        shown.to_string()
    } else {
        format!("{shown} (the first run makes it)")
    };
    Ok(Folder { words, notes })
}

/// What there is to say about so much room; where it is too little, that it is.
fn about_room(dir: &Path, room: Option<Room>) -> Result<Option<String>, Unusable> {
    let dir = dir.display();
    match room {
        Some(Room { no_files: true, .. }) => Err(Unusable {
            words: format!("{dir}: no further file can be made, the file system has no free inodes (`df -i`)"),
            action: "delete files there, or set state_dir",
        }),
        Some(Room { bytes, .. }) if bytes < NO_ROOM => Err(Unusable {
            words: format!("{dir}: the disk is full, {} kB are free", bytes >> 10),
            action: "make room on the disk, or set state_dir",
        }),
        Some(Room { bytes, .. }) if bytes < LITTLE_ROOM => {
            Ok(Some(format!("little room on the disk: {} MB are free", bytes >> 20)))
        }
        _ => Ok(None),
    }
}

/// That everybody on this machine could replace what is known, where they could.
pub(in crate::cli) fn open_folder(dir: &Path) -> Option<String> {
    let mode = state::open_to_everybody(dir)?;
    let dir = dir.display();
    Some(format!(
        "other users of this machine may delete and replace what is in {dir} (mode {mode:04o}); run `chmod 700 {dir}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_before_a_run_finds_it() {
        let about = |room| about_room(Path::new("/srv/state"), room);
        let free = |bytes| Some(Room { bytes, no_files: false });
        let full = about(free(64 << 10)).unwrap_err();
        assert_eq!(full.words, "/srv/state: the disk is full, 64 kB are free");
        assert!(full.action.contains("make room"));
        assert_eq!(
            about(free(5 << 20)).unwrap().as_deref(),
            Some("little room on the disk: 5 MB are free")
        );
        for enough in [free(1 << 30), None] {
            assert_eq!(about(enough).unwrap(), None);
        }
        let no_files = Room {
            bytes: 1 << 30,
            no_files: true,
        };
        let full = about(Some(no_files)).unwrap_err();
        assert!(full.words.contains("no free inodes"), "{}", full.words);
    }
}
