//! Between host and device. A CUDA device copies page-locked memory by itself and at full speed, while the thread goes on;
//! from other memory the driver copies piece by piece, and the thread waits.

use super::{Error, shim};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Numbers that one thread copies at a time.
const PART: usize = 1 << 18;

/// f32 numbers as a tensor of this shape on a device. For a CUDA device the copy is under way when this returns, in the order
/// of the device's work.
pub fn upload(values: &[f32], shape: &[i64], device: Device) -> Result<Tensor, Error> {
    let staged = match device {
        // Where the system grants no page-locked memory, any other does, slower.
        Device::Cuda(_) => shim::pinned(size_of_val(values) as i64).ok(),
        _ => None,
    };
    Ok(match staged {
        Some(staging) => fill(&staging, values)?.f_view(shape)?.f_to_device_(device, Kind::Float, true, false)?,
        None => Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(device)?,
    })
}

/// Copies numbers into a tensor of as many bytes; the same memory seen as f32.
fn fill(staging: &Tensor, values: &[f32]) -> Result<Tensor, Error> {
    let numbers = staging.f_view_dtype(Kind::Float)?;
    if numbers.numel() != values.len() || numbers.device() != Device::Cpu || !numbers.is_contiguous() {
        return Err(Error::Input(format!("{} numbers for memory of {}", values.len(), numbers.numel())));
    }
    // SAFETY: contiguous f32 memory of `values.len()` numbers on the host, checked above, made by the caller and seen by nobody
    // else; every bit pattern is an f32.
    let target = unsafe { std::slice::from_raw_parts_mut(numbers.data_ptr().cast::<f32>(), values.len()) };
    target.par_chunks_mut(PART).zip(values.par_chunks(PART)).for_each(|(target, values)| target.copy_from_slice(values));
    Ok(numbers)
}

/// A tensor on the host, once all its numbers are there; one that is there already is only shared.
pub fn download(tensor: &Tensor) -> Result<Tensor, Error> {
    if !matches!(tensor.device(), Device::Cuda(_)) {
        return Ok(tensor.shallow_clone());
    }
    let kind = tensor.f_kind()?;
    let Ok(staging) = shim::pinned((tensor.numel() * kind.elt_size_in_bytes()) as i64) else {
        return Ok(tensor.f_to_device(Device::Cpu)?);
    };
    let mut staging = staging.f_view_dtype(kind)?.f_view(tensor.size().as_slice())?;
    staging.f_copy_(tensor)?;
    Ok(staging)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_arrive_as_they_were() {
        let values: Vec<f32> = (0..3 * PART + 6).map(|i| i as f32 * 0.37 - 5.0).collect();
        let staging = Tensor::empty([size_of_val(values.as_slice()) as i64], (Kind::Uint8, Device::Cpu));
        let filled = Vec::<f32>::try_from(fill(&staging, &values).expect("filled")).expect("numbers");
        assert_eq!(filled, values);
        assert!(fill(&staging, &values[1..]).is_err());
        let there = upload(&values[..6], &[2, 3], Device::Cpu).expect("uploaded");
        assert_eq!((there.size(), there.kind()), (vec![2, 3], Kind::Float));
        assert_eq!(Vec::<f32>::try_from(download(&there).expect("downloaded").reshape([-1])).expect("numbers"), values[..6]);
    }
}
