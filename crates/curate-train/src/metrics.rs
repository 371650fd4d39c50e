//! How fast a run is: tokens per second after warm-up, TFLOP/s, share of the peak, waiting, memory.
//!
//! Model FLOPs are 6 N + 12 L C T a token ([`ModelConfig::flop_per_token`](crate::config::ModelConfig::flop_per_token)): what
//! recomputing adds is not counted, what a causal mask saves is. The share of the peak (MFU) is told only where a peak is
//! known: `--peak-tflops`, or the dense peak that the vendor gives for a GPU of this name. A CPU has none: its clock and
//! vector width leave too much open.

use std::ffi::{CStr, c_char, c_int};

use curate_shim::cuda::{Cuda, Memory};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::config::Dtype;

/// Steps of a call that count for nothing: kernels are chosen, memory is mapped, caches are filled.
pub const WARM_UP_STEPS: u64 = 5;

/// The formula of the model's FLOPs, as it is printed and stored.
pub const FORMULA: &str = "6 N + 12 L C T a token";

/// What a device could do at best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// 10^12 operations a second, dense.
    pub tflops: f64,
    /// Where that comes from.
    pub source: String,
}

/// Dense peaks in 10^12 operations a second: part of the GPU's name, bf16 with fp32 sums, fp32 without tensor cores. From
/// NVIDIA's data sheets; figures there "with sparsity" are halved. The first name that fits counts.
const GPUS: [(&str, f64, f64); 13] = [
    ("B200", 2250.0, 75.0),
    ("H200 NVL", 835.5, 60.0),
    ("H200", 989.5, 67.0),
    ("H100 PCIe", 756.5, 51.0),
    ("H100 NVL", 835.5, 60.0),
    ("H100", 989.5, 67.0),
    ("A100", 312.0, 19.5),
    ("A800", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("L4", 121.0, 30.3),
    ("A40", 149.7, 37.4),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
];

impl Peak {
    /// The peak to measure against: the one that was given, or else that of a known GPU; 0 is none given.
    pub fn of(given_tflops: f64, device: Device, dtype: Dtype) -> Option<Peak> {
        if given_tflops > 0.0 {
            return Some(Peak { tflops: given_tflops, source: "--peak-tflops".to_owned() });
        }
        match device {
            Device::Cuda(index) => Peak::of_gpu(&gpu_name(index)?, dtype),
            _ => None,
        }
    }

    fn of_gpu(name: &str, dtype: Dtype) -> Option<Peak> {
        let (_, bf16, fp32) = GPUS.into_iter().find(|(part, ..)| {
            // "L4" is no part of "L40".
            name.match_indices(part)
                .any(|(at, _)| !name[at + part.len()..].starts_with(|c: char| c.is_ascii_alphanumeric()))
        })?;
        let (tflops, kind) = match dtype {
            Dtype::Bf16 => (bf16, "bf16"),
            Dtype::Fp32 => (fp32, "fp32"),
        };
        Some(Peak { tflops, source: format!("{name}, dense {kind}, NVIDIA's data sheet") })
    }
}

/// The name of a CUDA device, from the driver that torch has loaded.
fn gpu_name(index: usize) -> Option<String> {
    // SAFETY: the name is a C string; the library is the driver's own, which a process with a CUDA device has already.
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if library.is_null() {
        return None;
    }
    // SAFETY: `library` is a handle that dlopen gave, and the name is a C string.
    let symbol = unsafe { libc::dlsym(library, c"cuDeviceGetName".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    type DeviceGetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    // SAFETY: cuDeviceGetName(char*, int, CUdevice = int) -> CUresult has had this form since CUDA 2.0.
    let get_name: DeviceGetName = unsafe { std::mem::transmute(symbol) };
    let mut name = [0 as c_char; 128];
    // SAFETY: the buffer has the length that is told, and torch has initialised the driver to find the device. Devices
    // are numbered from 0 in the order of CUDA_VISIBLE_DEVICES, as torch's are.
    let result = unsafe { get_name(name.as_mut_ptr(), name.len() as c_int, c_int::try_from(index).ok()?) };
    // SAFETY: the buffer was all zero and is longer than any name, so that it ends with one.
    (result == 0).then(|| unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// The largest memory that this process has had, in bytes.
pub fn peak_memory_bytes() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for writing; zeroed is a valid rusage, so it may be read even if the call failed.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
}

/// Memory of torch's allocator on a CUDA device; `None` on a CPU, and where the program was built without CUDA's headers.
/// The allocator keeps these numbers on the host: nothing waits for the device. Not run on a GPU so far.
pub fn cuda_memory(device: Device) -> Option<Memory> {
    match device {
        Device::Cuda(index) => Cuda::get().ok()?.memory(i32::try_from(index).ok()?).ok(),
        _ => None,
    }
}

/// Sums over the steps of one call.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    seen: u64,
    steps: u64,
    seconds: f64,
    data_wait_s: f64,
}

/// How fast a call was, as it stands in `speed.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Steps that were measured.
    pub steps: u64,
    /// Steps before these that were not.
    pub warm_up_steps: u64,
    /// Rows × T of these steps per second of them; evaluations and checkpoints are outside.
    pub tokens_per_s: f64,
    /// Share of that time spent waiting for batches.
    pub data_wait_share: f64,
    /// 10^12 model FLOPs per second.
    pub teraflop_per_s: f64,
    /// What a model FLOP is.
    pub formula: String,
    /// The device's peak, if it is known.
    pub peak: Option<Peak>,
    /// Share of the peak.
    pub mfu: Option<f64>,
    /// Largest memory of the process on the host.
    pub peak_memory_bytes: u64,
    /// Most that tensors have held of the GPU at once, on CUDA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_peak_bytes: Option<u64>,
}

impl Meter {
    /// Adds a step.
    pub fn add(&mut self, seconds: f64, data_wait_s: f64) {
        self.seen += 1;
        if self.seen > WARM_UP_STEPS {
            self.steps += 1;
            self.seconds += seconds;
            self.data_wait_s += data_wait_s;
        }
    }

    /// The result, if there were enough steps.
    pub fn speed(&self, tokens_per_step: f64, flop_per_token: f64, peak: Option<Peak>) -> Option<Speed> {
        if self.steps == 0 {
            return None;
        }
        let tokens_per_s = tokens_per_step * self.steps as f64 / self.seconds;
        let teraflop_per_s = tokens_per_s * flop_per_token * 1e-12;
        Some(Speed {
            steps: self.steps,
            warm_up_steps: WARM_UP_STEPS,
            tokens_per_s,
            data_wait_share: self.data_wait_s / self.seconds,
            teraflop_per_s,
            formula: FORMULA.to_owned(),
            mfu: peak.as_ref().map(|peak| teraflop_per_s / peak.tflops),
            peak,
            peak_memory_bytes: peak_memory_bytes(),
            cuda_peak_bytes: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_known_or_not_told() {
        let check = |name: &str, dtype, expected: Option<f64>| {
            assert_eq!(Peak::of_gpu(name, dtype).map(|peak| peak.tflops), expected, "{name}");
        };
        check("NVIDIA H100 80GB HBM3", Dtype::Bf16, Some(989.5));
        check("NVIDIA H100 PCIe", Dtype::Bf16, Some(756.5));
        check("NVIDIA H200", Dtype::Bf16, Some(989.5));
        check("NVIDIA A100-SXM4-40GB", Dtype::Bf16, Some(312.0));
        check("NVIDIA A100-SXM4-40GB", Dtype::Fp32, Some(19.5));
        check("NVIDIA L40S", Dtype::Bf16, Some(362.0));
        check("NVIDIA L4", Dtype::Bf16, Some(121.0));
        check("NVIDIA L40", Dtype::Bf16, None);
        check("NVIDIA GB10", Dtype::Bf16, None);
        assert_eq!(Peak::of(0.0, Device::Cpu, Dtype::Fp32), None);
        assert_eq!(
            Peak::of(2.5, Device::Cpu, Dtype::Fp32).map(|peak| peak.source),
            Some("--peak-tflops".into())
        );
    }

    #[test]
    fn warm_up_counts_for_nothing() {
        let mut meter = Meter::default();
        (0..WARM_UP_STEPS).for_each(|_| meter.add(100.0, 50.0));
        assert_eq!(meter.speed(1000.0, 1e9, None), None);
        (0..4).for_each(|_| meter.add(0.5, 0.001));
        let peak = Peak { tflops: 4.0, source: "test".into() };
        let speed = meter.speed(1000.0, 1e9, Some(peak)).unwrap();
        assert_eq!((speed.steps, speed.tokens_per_s, speed.data_wait_share), (4, 2000.0, 0.002));
        assert_eq!((speed.teraflop_per_s, speed.mfu), (2.0, Some(0.5)));
        assert!(speed.peak_memory_bytes > 1 << 20);
    }
}
