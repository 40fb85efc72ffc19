#![no_main]

mod gauge;

gauge::fuzz!("configuration");
