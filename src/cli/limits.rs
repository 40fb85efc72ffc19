//! What the system grants the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that a connector takes at most: its state, and the connections of a run.
const FILES_OF_A_CONNECTOR: u64 = 16;
/// Those that the process itself takes: the status page, the control socket, and whoever asks there.
const FILES_OF_ALL: u64 = 300;

/// Takes as many file descriptors as the system grants: the usual soft limit of 1,024 ends at about two hundred connectors.
pub(super) fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // Where that is refused, what there is may do.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// Says so when there are fewer file descriptors than so many connectors may need.
pub(super) fn warn_of_files(connectors: usize) {
    let needed = FILES_OF_ALL + FILES_OF_A_CONNECTOR * connectors as u64;
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < needed
    {
        tracing::warn!(
            connectors,
            limit,
            needed,
            "there may be too few file descriptors for so many connectors: raise the limit (ulimit -n; systemd: LimitNOFILE=)"
        );
    }
}
