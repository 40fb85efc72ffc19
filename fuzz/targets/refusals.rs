#![no_main]

mod gauge;

gauge::fuzz!("refusals");
