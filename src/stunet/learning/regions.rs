//! The same sums and gradients for overlapping regions: one sigmoid per output instead of one softmax.

use super::softmax::{IGNORED, Slopes, Sums};
use crate::stunet::Error;
use crate::stunet::fused::five;
use tch::{Device, Kind, Tensor};

/// Probabilities, 1 inside each region, and 1 where a voxel counts: `[N, R, V]`, `[N, R, V]`, `[N, 1, V]`.
fn parts(logits: &Tensor, labels: &[u16], regions: &[Vec<u16>]) -> Result<(Tensor, Tensor, Tensor), Error> {
    let [n, r, x, y, z] = five(logits)?;
    if regions.len() != r || labels.len() != n * x * y * z {
        return Err(Error::Input(format!("labels or regions that do not fit logits of shape {:?}", logits.size())));
    }
    let (kind, device, voxels) = (logits.f_kind()?, logits.device(), x * y * z);
    let mut inside = vec![0u8; n * r * voxels];
    for (sample, labels) in labels.chunks_exact(voxels).enumerate() {
        for (region, classes) in regions.iter().enumerate() {
            let inside = &mut inside[(sample * r + region) * voxels..][..voxels];
            inside.iter_mut().zip(labels).for_each(|(inside, label)| *inside = classes.contains(label).into());
        }
    }
    let counts: Vec<u8> = labels.iter().map(|&label| (label != IGNORED).into()).collect();
    let [n, r, voxels] = [n, r, voxels].map(|edge| edge as i64);
    let tensor = |values: &[u8], shape: [i64; 3]| -> Result<Tensor, Error> {
        Ok(Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device)?.f_to_kind(kind)?)
    };
    Ok((logits.f_reshape([n, r, voxels])?, tensor(&inside, [n, r, voxels])?, tensor(&counts, [n, 1, voxels])?))
}

/// The sums of each sample. `regions` are the labels that make up each output; `labels` `[N, X, Y, Z]`. The entropy is that
/// of all outputs of a voxel together.
pub fn region_sums(logits: &Tensor, labels: &[u16], regions: &[Vec<u16>]) -> Result<Vec<Sums>, Error> {
    let (z, inside, counts) = parts(logits, labels, regions)?;
    let p = z.f_sigmoid()?;
    // -ln of the probability of what is true: softplus(z) - z inside.
    let entropy = z.f_softplus()?.f_sub(&z.f_mul(&inside)?)?.f_mul(&counts)?;
    let rows = |tensor: &Tensor| -> Result<Vec<Vec<f64>>, Error> {
        Ok(Vec::try_from(tensor.f_sum_dim_intlist([2i64].as_slice(), false, Kind::Double)?.f_to_device(Device::Cpu)?)?)
    };
    let inside = inside.f_mul(&counts)?;
    let (entropy, voxels, hit) = (rows(&entropy)?, rows(&counts)?, rows(&p.f_mul(&inside)?)?);
    let (predicted, truth) = (rows(&p.f_mul(&counts)?)?, rows(&inside)?);
    let per_sample = entropy.into_iter().zip(voxels).zip(hit).zip(predicted).zip(truth);
    Ok(per_sample
        .map(|((((entropy, voxels), hit), predicted), truth)| Sums {
            entropy: entropy.iter().sum(),
            voxels: voxels.first().copied().unwrap_or(0.0) as u64,
            hit,
            predicted,
            truth,
        })
        .collect())
}

/// The gradient of the loss by the logits, as they are shaped.
pub fn region_gradient(logits: &Tensor, labels: &[u16], regions: &[Vec<u16>], slopes: &[Slopes]) -> Result<Tensor, Error> {
    let (z, inside, counts) = parts(logits, labels, regions)?;
    let p = z.f_sigmoid()?;
    let (kind, device, width) = (logits.f_kind()?, logits.device(), regions.len() as i64);
    let table = |values: Vec<f64>, width: i64| -> Result<Tensor, Error> {
        Ok(Tensor::f_from_slice(&values)?.f_reshape([-1, width, 1])?.f_to_kind(kind)?.f_to_device(device)?)
    };
    let hit = table(slopes.iter().flat_map(|s| s.hit.iter().copied()).collect(), width)?;
    let predicted = table(slopes.iter().flat_map(|s| s.predicted.iter().copied()).collect(), width)?;
    let entropy = table(slopes.iter().map(|s| s.entropy).collect(), 1)?;
    let by_p = inside.f_mul(&hit)?.f_add(&predicted)?.f_mul(&p)?.f_mul(&p.f_neg()?.f_add_scalar(1.0)?)?;
    let by_entropy = p.f_sub(&inside)?.f_mul(&entropy)?;
    Ok(by_p.f_add(&by_entropy)?.f_mul(&counts)?.f_reshape(logits.size())?)
}
