//! What Rust alone cannot do, or not fast enough: the one module that is `unsafe`.
//!
//! Each part says why it is here and why it is sound. All else of this crate refuses
//! `unsafe`.
#![allow(unsafe_code)]

pub mod batch;

/// Asks memory for what lies at `value`, without waiting for it.
///
/// Counting an event needs a dozen places that no cache holds: asked for one after the
/// other, they take longer than all that is computed. Asked for ahead, many are under way
/// at once.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        let start: *const i8 = std::ptr::from_ref(value).cast();
        for line in 0..size_of_val(value).div_ceil(LINE) {
            // SAFETY: a prefetch reads nothing, and may name any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Has the allocator keep what is freed, instead of giving it back to the system piece by
/// piece: it is asked for again soon. What was given back has to be zeroed when it comes
/// again, and huge pages are broken into small ones by it, which on a virtual machine
/// makes memory half as fast. `MIMALLOC_PURGE_DELAY` in the environment is stronger.
pub fn keep_freed_memory() {
    /// `mi_option_purge_delay` in mimalloc's `mimalloc.h`, the same since version 1.8;
    /// the bindings do not name it.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const NEVER: std::ffi::c_long = -1;
    // SAFETY: it takes any option and value.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, NEVER) };
}
