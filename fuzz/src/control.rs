//! What a command, or anybody who can open the control socket, sends to the daemon.

use torq_connector::daemon::control::Request;
use torq_connector::fuzzing::read_request;

use super::Gauge;
use super::foreign::{assert_readable, measured};

/// A request says what it means in one way only; what is none is told in a short line.
pub fn control_request(data: &[u8], gauge: Gauge) {
    // One line, as the socket reads it.
    let line = data.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let request = match measured(gauge, line.len(), || read_request(line)) {
        Ok(request) => request,
        Err(words) => {
            assert!(!words.is_empty());
            return assert_readable(&words, 400);
        }
    };
    if let Request::Act { connectors, .. } = &request {
        let mut names = connectors.clone();
        names.sort();
        names.dedup();
        assert_eq!(
            names.len(),
            connectors.len(),
            "a connector is asked once: {connectors:?}"
        );
    }
    let written = serde_json::to_string(&request).unwrap();
    assert!(!written.contains('\n'), "one line");
    let again = read_request(written.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
}
