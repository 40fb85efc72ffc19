#![no_main]

mod gauge;

gauge::fuzz!("jumpcloud_lists");
