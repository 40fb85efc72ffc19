#![no_main]

mod gauge;

gauge::fuzz!("control_request");
