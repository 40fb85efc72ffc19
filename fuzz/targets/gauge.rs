//! How a target runs its property: with every byte counted that the decoder asks for.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Fails when the decoder asks for more bytes than it may, freed ones included. A target has one thread, so nobody else counts.
pub(crate) fn counted(allowed: usize, decode: &mut dyn FnMut()) {
    let region = Region::new(HEAP);
    decode();
    let asked = region.change().bytes_allocated;
    assert!(
        asked <= allowed,
        "decoding asked for {asked} bytes, and may for {allowed}"
    );
}

/// The target of this property.
macro_rules! fuzz {
    ($name:literal) => {
        static PROPERTY: std::sync::LazyLock<properties::Property> =
            std::sync::LazyLock::new(|| properties::named($name));

        libfuzzer_sys::fuzz_target!(|data: &[u8]| PROPERTY(data, $crate::gauge::counted));
    };
}
pub(crate) use fuzz;
