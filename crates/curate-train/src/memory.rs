//! Keeps large blocks of memory in the process between steps.

/// Tells glibc's allocator to reuse freed blocks instead of giving them back to the kernel.
///
/// Every step frees and allocates the same tensors. By default the larger ones are mapped anew each time, and the
/// kernel clears every page again: about 8 % of the CPU time of a small model. The peak does not change. It is for
/// programs, at their start: the whole process is affected.
pub fn keep() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_MMAP_THRESHOLD, 1 << 30), (libc::M_TRIM_THRESHOLD, libc::c_int::MAX)]
    {
        // SAFETY: mallopt may be called at any time; this is at the start, before there is a second thread.
        // A value that this glibc does not take changes nothing.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}
