//! What a disk that does not do as it is told means for a person. SQLite says "disk I/O error" to a disk that is full, read-only or
//! broken alike, so something small is written beside the state: the system's own words say which.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::ErrorCode;

/// What is written to see how the disk does: more than a file system keeps beside a file's name.
const PROBE: [u8; 8192] = [0x5a; 8192];

/// What the system says about writing into the folder of a state; `None` when nothing is wrong with that.
pub(super) fn probe(state: &Path) -> Option<io::Error> {
    let folder = state.parent()?;
    // Begins with a dot, so that it is no connector's.
    let path = folder.join(format!(".probe-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&PROBE)?;
        file.sync_data()
    };
    let error = write().err();
    let _ = fs::remove_file(&path);
    error
}

/// What a file system still takes of this user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// So many bytes.
    pub bytes: u64,
    /// And not one file more.
    pub no_files: bool,
}

/// What may still be written where a folder is, by what the file system says of itself. `None` where it does not say; and of quotas it says
/// nothing.
pub fn room(folder: &Path) -> Option<Room> {
    let there = rustix::fs::statvfs(folder).ok().filter(|there| there.f_blocks > 0)?;
    Some(Room {
        bytes: there.f_bavail.saturating_mul(there.f_frsize),
        // Some file systems count none.
        no_files: there.f_files > 0 && there.f_favail == 0,
    })
}

/// The mode of a folder in which everybody may delete and replace what is there. (In a sticky one, as images have it for whichever user
/// they run as, only what is one's own.)
pub fn open_to_everybody(folder: &Path) -> Option<u32> {
    let mode = fs::metadata(folder).ok()?.permissions().mode() & 0o7777;
    (mode & 0o1002 == 0o0002).then_some(mode)
}

/// Whether an error of SQLite may have to do with the disk, so that it is worth asking.
pub(super) fn is_about_disk(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

/// What a person can do about an error of SQLite, with what the system said when it was asked.
pub(super) fn advice(error: &rusqlite::Error, system: Option<&io::Error>) -> String {
    if let Some(system) = system {
        return format!(" ({system}){}", advice_of_system(system));
    }
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => FULL,
        Some(ErrorCode::SystemIoFailure) => BROKEN,
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => NOT_PERMITTED,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; another program has it open and locked (sqlite3, a backup?): end that; nothing is lost, and the next run goes on"
        }
        _ => "",
    };
    advice.to_owned()
}

/// What a person can do about an error of the system.
pub(super) fn advice_of_system(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FULL,
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is read-only: make it writable, or let state_dir name a folder that is; nothing is lost, and the next run goes on"
        }
        io::ErrorKind::PermissionDenied => NOT_PERMITTED,
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; something else has this name: move it away, or let state_dir name another folder"
        }
        _ => BROKEN,
    }
}

const FULL: &str = "; make room on the disk: nothing is lost, and the next run goes on";
const BROKEN: &str =
    "; the system's log (dmesg, journalctl -k) may say more; nothing is lost, and the next run goes on";
const NOT_PERMITTED: &str =
    "; the folder and its files must belong to the user that runs torq-connector, and be writable";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_takes_what_is_written_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(probe(&dir.path().join("main.db")).is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let gone = probe(&dir.path().join("nowhere/main.db")).unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_for_everybody_is_one_whose_files_anybody_may_replace() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, open) in [
            (0o700, None),
            (0o755, None),
            (0o1777, None),
            (0o770, None),
            (0o777, Some(0o777)),
        ] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_everybody(dir.path()), open, "{mode:o}");
        }
        assert_eq!(open_to_everybody(&dir.path().join("nowhere")), None);
        assert!(room(dir.path()).is_none_or(|room| room.bytes > 0));
        assert_eq!(room(&dir.path().join("nowhere")), None);
    }

    #[test]
    fn every_refusal_of_a_disk_comes_with_a_way_out() {
        let system = |kind| advice_of_system(&io::Error::from(kind));
        assert!(system(io::ErrorKind::StorageFull).contains("make room"));
        assert!(system(io::ErrorKind::ReadOnlyFilesystem).contains("read-only"));
        assert!(system(io::ErrorKind::PermissionDenied).contains("belong to the user"));
        assert!(system(io::ErrorKind::Other).contains("system's log"));
    }
}
