#![no_main]

mod gauge;

gauge::fuzz!("torq_roles");
