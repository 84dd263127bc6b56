//! The Rust side of `shim.cpp`: what tch does not reach in libtorch.

use super::Error;
use super::error::from_torch_text;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use tch::Tensor;

/// libtorch's tensor object, as tch points to it.
type At = *mut c_void;

unsafe extern "C" {
    fn stunetd_free(message: *mut c_char);
    fn stunetd_parallel(n: i64, body: extern "C" fn(*mut c_void, i64, i64), context: *mut c_void);
    fn stunetd_pack_conv3d(weight: At, padding: *const i64, stride: *const i64, input: *const i64, out: *mut At) -> *mut c_char;
    fn stunetd_conv3d(x: At, weight: At, bias: At, padding: *const i64, stride: *const i64, sum: At, out: *mut At) -> *mut c_char;
    fn stunetd_allow_tf32(allow: bool) -> *mut c_char;
    fn stunetd_cuda_has_bf16(out: *mut bool) -> *mut c_char;
    fn stunetd_pinned(bytes: i64, out: *mut At) -> *mut c_char;
    fn stunetd_empty_cuda_cache() -> *mut c_char;
    fn stunetd_cuda_memory(device: c_int, out: *mut i64) -> *mut c_char;
    fn stunetd_reset_cuda_peak(device: c_int) -> *mut c_char;
    fn stunetd_run_short(least: i64, spared: i64, failures: i64, seen: *mut i64) -> *mut c_char;
}

/// Takes over and frees a message of the shim; null is success.
fn check(message: *mut c_char) -> Result<(), Error> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a string of its own made by strdup, which is ours and freed once, here.
    unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        stunetd_free(message);
        Err(from_torch_text(&text))
    }
}

fn at(tensor: &Tensor) -> At {
    tensor.as_ptr().cast::<c_void>().cast_mut()
}

/// Runs a shim function that makes a tensor.
fn make(call: impl FnOnce(*mut At) -> *mut c_char) -> Result<Tensor, Error> {
    let mut out: At = std::ptr::null_mut();
    check(call(&mut out))?;
    // SAFETY: without a message the shim has stored a `new at::Tensor`, which is what tch's own functions make; tch
    // deletes it.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Runs `body` over parts that together cover `0..n`, on libtorch's own threads. The parts depend on the number of
/// threads; what they compute must not. A panic in `body` ends the process.
pub(super) fn parallel<F: Fn(Range<usize>) + Sync>(n: usize, body: F) {
    extern "C" fn part<F: Fn(Range<usize>) + Sync>(context: *mut c_void, begin: i64, end: i64) {
        // SAFETY: `context` is the `&F` below, which outlives the call; `F: Sync` lets threads share it.
        let body = unsafe { &*context.cast::<F>() };
        body(begin as usize..end as usize);
    }
    // SAFETY: the call returns only after every part has run.
    unsafe { stunetd_parallel(n as i64, part::<F>, (&raw const body).cast_mut().cast()) }
}

/// A convolution weight `[out, in, kx, ky, kz]` (f32 or bf16, on the CPU) laid out once for channels-last inputs of shape
/// `input`. The result is opaque: only [`conv3d`] takes it. Inputs of other sizes work too, at the price of a copy of the
/// weight where oneDNN prefers another layout for them.
pub(super) fn pack_conv3d(weight: &Tensor, padding: [i64; 3], stride: [i64; 3], input: [i64; 5]) -> Result<Tensor, Error> {
    // SAFETY: all pointers are to live tensors or arrays of the length that the shim reads.
    make(|out| unsafe { stunetd_pack_conv3d(at(weight), padding.as_ptr(), stride.as_ptr(), input.as_ptr(), out) })
}

/// Convolution with a packed weight; input and output are channels-last. Groups and dilation are 1.
pub(super) fn conv3d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, padding: [i64; 3], stride: [i64; 3]) -> Result<Tensor, Error> {
    let (bias, sum) = (bias.map_or(std::ptr::null_mut(), at), std::ptr::null_mut());
    // SAFETY: as above; a null bias or sum means none.
    make(|out| unsafe { stunetd_conv3d(at(x), at(weight), bias, padding.as_ptr(), stride.as_ptr(), sum, out) })
}

/// Whether CUDA may compute f32 in TF32 (10 bits of mantissa) in this process. Opening a network turns it off;
/// libtorch's own default has it on for cuDNN.
pub fn allow_tf32(allow: bool) -> Result<(), Error> {
    // SAFETY: sets flags of libtorch's global context.
    check(unsafe { stunetd_allow_tf32(allow) })
}

/// Whether the CUDA device convolves bf16 in hardware; `false` without one.
pub(super) fn cuda_has_bf16() -> Result<bool, Error> {
    let mut yes = false;
    // SAFETY: the shim writes one bool.
    check(unsafe { stunetd_cuda_has_bf16(&raw mut yes) })?;
    Ok(yes)
}

/// Page-locked host memory, uninitialised, as a tensor of `bytes` bytes: a CUDA device copies from and to it by itself. An
/// error without such a device.
pub(super) fn pinned(bytes: i64) -> Result<Tensor, Error> {
    // SAFETY: allocates.
    make(|out| unsafe { stunetd_pinned(bytes, out) })
}

/// Gives cached device memory that no tensor uses back to the CUDA driver. Does nothing without CUDA.
pub fn empty_cuda_cache() -> Result<(), Error> {
    // SAFETY: the caching allocator takes its own lock.
    check(unsafe { stunetd_empty_cuda_cache() })
}

/// Bytes of a CUDA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaMemory {
    /// Free, as the driver sees it.
    pub free: u64,
    /// In all.
    pub total: u64,
    /// In this process's tensors now.
    pub allocated: u64,
    /// The most that was in this process's tensors at a time, since the start or [`reset_cuda_peak`].
    pub peak: u64,
    /// What this process holds for tensors, used or cached: not free, but at hand.
    pub reserved: u64,
}

/// The memory of CUDA device `index`; an error where there is none.
pub fn cuda_memory(index: usize) -> Result<CudaMemory, Error> {
    let mut bytes = [0i64; 5];
    // SAFETY: the array has the five elements that the shim writes.
    check(unsafe { stunetd_cuda_memory(index as c_int, bytes.as_mut_ptr()) })?;
    let [free, total, allocated, peak, reserved] = bytes.map(|b| b.max(0) as u64);
    Ok(CudaMemory { free, total, allocated, peak, reserved })
}

/// Counts [`CudaMemory::peak`] anew from now on; an error without such a device.
pub fn reset_cuda_peak(index: usize) -> Result<(), Error> {
    // SAFETY: the caching allocator takes its own lock.
    check(unsafe { stunetd_reset_cuda_peak(index as c_int) })
}

/// A shortage of host memory on this thread, for tests of what happens then; it ends when dropped. Not `Send`: it is the thread's.
pub struct Shortage(std::marker::PhantomData<*const ()>);

impl Shortage {
    /// Of libtorch's allocations of at least `least` bytes on this thread, the first `spared` succeed, the next `failures` fail, and all
    /// others succeed. A shortage that exists already is replaced.
    pub fn begin(least: u64, spared: u64, failures: u64) -> Result<Shortage, Error> {
        Shortage::set(least.try_into().unwrap_or(i64::MAX), spared, failures)?;
        Ok(Shortage(std::marker::PhantomData))
    }

    /// Ends it. How many allocations there were that it counted.
    pub fn end(self) -> Result<u64, Error> {
        Shortage::set(-1, 0, 0)
    }

    fn set(least: i64, spared: u64, failures: u64) -> Result<u64, Error> {
        let (spared, failures) = (spared.try_into().unwrap_or(i64::MAX), failures.try_into().unwrap_or(i64::MAX));
        let mut seen = 0;
        // SAFETY: the shim writes one number.
        check(unsafe { stunetd_run_short(least, spared, failures, &raw mut seen) })?;
        Ok(seen.max(0) as u64)
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        // Only a first call can fail, and there was one.
        let _ = Shortage::set(-1, 0, 0);
    }
}

/// Keeps libtorch's waiting threads from burning cores that other work could use. Call before the first network runs;
/// further calls do nothing. What users set by `OMP_WAIT_POLICY` or `GOMP_SPINCOUNT` stays.
///
/// GNU OpenMP reads those variables before `main`, and by default a thread at the end of its part spins for milliseconds
/// before it sleeps, unless the process manages more threads than there are cores; then it sleeps after microseconds.
/// A parked thread with a team of its own makes it so. On two shared cores this halves the time of a window; on idle
/// ones it costs nothing measurable.
pub(super) fn let_waiting_threads_sleep() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"].iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        let (started, wait) = std::sync::mpsc::channel();
        let spare = std::thread::Builder::new().name("openmp-spare".into()).spawn(move || {
            parallel(tch::get_num_threads().max(1) as usize, |_| {});
            let _ = started.send(());
            loop {
                std::thread::park();
            }
        });
        // Without the thread everything works, slower.
        if spare.is_ok() {
            let _ = wait.recv();
        }
    });
}
