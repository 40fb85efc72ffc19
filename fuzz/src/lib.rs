//! What must hold for any bytes that come from somewhere else, whoever sent them and whatever they are: one function for each
//! decoder of foreign bytes. It decodes them and asserts what the rest of the connector relies on.
//!
//! The fuzz targets feed these functions with whatever libFuzzer thinks of; the connector's own tests feed them with the
//! committed corpora. So nothing in here knows of libFuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod configuration;
mod control;
mod foreign;
mod headers;
mod jumpcloud;
mod oracle;
mod refusals;
mod token;
mod torq;

/// Runs a decoder, and complains when it asked for more memory than so many bytes. Tests that share their process with others
/// cannot tell: see [`unmeasured`].
pub type Gauge = fn(allowed: usize, decode: &mut dyn FnMut());

/// Runs a decoder and measures nothing.
pub fn unmeasured(_: usize, decode: &mut dyn FnMut()) {
    decode();
}

/// What must hold for one kind of foreign bytes.
pub type Property = fn(data: &[u8], gauge: Gauge);

/// Every property, under the name of its fuzz target and its corpus.
pub const PROPERTIES: &[(&str, Property)] = &[
    ("configuration", configuration::configuration),
    ("control_request", control::control_request),
    ("headers", headers::headers),
    ("jumpcloud_lists", jumpcloud::jumpcloud_lists),
    ("jumpcloud_records", jumpcloud::jumpcloud_records),
    ("refusals", refusals::refusals),
    ("token_answer", token::token_answer),
    ("torq_roles", torq::torq_roles),
    ("torq_users", torq::torq_users),
];

/// The property of this name.
pub fn named(name: &str) -> Property {
    let found = PROPERTIES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no property {name}")).1
}
