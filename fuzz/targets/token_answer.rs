#![no_main]

mod gauge;

gauge::fuzz!("token_answer");
