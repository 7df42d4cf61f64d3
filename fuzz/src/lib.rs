//! What the fuzz targets share: a bound on the memory that one input may take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Most bytes that an input may have allocated at once: what is allowed to hold a megabyte, twice, and what a parser
/// needs for itself.
const BASE: usize = 8 << 20;
/// Most that each byte of it may add: an entry of a map costs some hundred bytes and is written with a few.
const PER_BYTE: usize = 1 << 10;

struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(now: usize) {
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(NOW.get().saturating_add(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(NOW.get().saturating_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a check of modelmount's, `source::fuzzing::check`, and panics if it took too much memory.
pub fn check(target: &str, input: &[u8]) {
    let before = NOW.get();
    PEAK.set(before);
    modelmount::source::fuzzing::check(target, input);
    let taken = PEAK.get() - before;
    assert!(taken <= BASE + PER_BYTE * input.len(), "{taken} bytes of memory for {} of input", input.len());
}
