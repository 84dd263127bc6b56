//! What can go wrong in this room, and the one place where libtorch's error text is read.

use super::ArchitectureError;
use crate::fault::{Code, Fault};
use std::path::PathBuf;

/// Why a network can not be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The architecture itself, or a patch for it.
    #[error("{0}")]
    Architecture(#[from] ArchitectureError),
    /// A file of tensors can not be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The weights file is no safetensors file, or not these weights.
    #[error("weights file {}: {detail}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A result can not be written.
    #[error("{0}")]
    Storage(#[from] crate::sys::durable::StorageError),
    /// The input tensor does not fit the network.
    #[error("network input: {0}")]
    Input(String),
    /// The device or precision asked for can not be had.
    #[error("{0}")]
    Unsupported(String),
    /// libtorch could not get memory.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device is lost: nothing on it works until the process starts anew.
    #[error("{0}")]
    DeviceLost(String),
    /// Any other complaint of libtorch.
    #[error("{0}")]
    Torch(String),
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Error {
        from_torch_text(&error.to_string())
    }
}

/// Longest part of libtorch's text that is kept.
const MAX_TEXT: usize = 600;

/// Reads libtorch's error text: memory, a lost device, or anything else. The stack trace and long lists are cut off.
pub(super) fn from_torch_text(text: &str) -> Error {
    const MEMORY: [&str; 8] = [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "OutOfMemory",
        "std::bad_alloc",
        "could not create a memory object",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
    ];
    const LOST: [&str; 6] = [
        "CUDA error",
        "CUDNN_STATUS_EXECUTION_FAILED",
        "CUDNN_STATUS_INTERNAL_ERROR",
        "CUBLAS_STATUS_EXECUTION_FAILED",
        "device-side assert",
        "No CUDA GPUs",
    ];
    let end = ["Exception raised from", "\nframe #0"].iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    let short: String = text[..end].trim().chars().take(MAX_TEXT).collect();
    let any = |needles: &[&str]| needles.iter().any(|n| short.contains(n));
    if any(&MEMORY) {
        Error::OutOfMemory(short)
    } else if any(&LOST) {
        Error::DeviceLost(short)
    } else {
        Error::Torch(short)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let error = match error {
            Error::Storage(error) => return error.into(),
            other => other,
        };
        let code = match &error {
            Error::Architecture(_) => Code::ModelManifest,
            Error::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Code::ModelMissing,
            Error::Unreadable { .. } => Code::DiskUnreadable,
            Error::Weights { .. } => Code::ModelMismatch,
            Error::Input(_) => Code::ModelInput,
            Error::Storage(_) => Code::DiskUnwritable,
            Error::Unsupported(_) | Error::DeviceLost(_) => Code::DeviceUnavailable,
            Error::OutOfMemory(_) => Code::DeviceOutOfMemory,
            Error::Torch(_) => Code::InternalTorch,
        };
        Fault::new(code, error.to_string()).caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_libtorch_are_told_apart() {
        let code = |text: &str| Fault::from(from_torch_text(text)).code;
        let cuda = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB";
        assert_eq!(code(cuda), Code::DeviceOutOfMemory);
        let cpu = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12";
        assert_eq!(code(cpu), Code::DeviceOutOfMemory);
        assert_eq!(code("CUDA error: an illegal memory access was encountered"), Code::DeviceUnavailable);
        assert_eq!(
            code("Given groups=1, weight of size [4, 1, 3, 3, 3], expected input[1, 2, 8, 8, 8] to have 1 channels"),
            Code::InternalTorch
        );
    }

    #[test]
    fn a_real_failure_of_the_allocator_is_recognised() {
        let error = tch::Tensor::f_empty([1 << 50], (tch::Kind::Double, tch::Device::Cpu)).expect_err("8 PiB");
        let error = Error::from(error);
        assert!(matches!(&error, Error::OutOfMemory(text) if !text.contains("frame #0")), "{error:?}");
    }
}
