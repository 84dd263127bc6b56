//! Where finished slabs become labels: the exporter on the host, or the device itself.

use super::aggregate::SlabSink;
use super::export::{Exporter, Tap, taps};
use super::{Decision, SegmentError};
use crate::volume::Labels;
use rayon::prelude::*;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Bytes that one thread copies at a time.
const COPY_BYTES: usize = 1 << 20;
/// Bytes of interpolated outputs that a device holds at once.
pub(super) const DEVICE_BYTES: usize = 256 << 20;

/// Hands slabs to the [`Exporter`] slice by slice.
pub struct HostLabels {
    exporter: Exporter,
}

impl HostLabels {
    /// Labels through this exporter.
    pub fn new(exporter: Exporter) -> HostLabels {
        HostLabels { exporter }
    }

    /// The labels, once all slices have come.
    pub fn finish(self) -> Result<Labels, SegmentError> {
        self.exporter.finish()
    }
}

impl SlabSink for HostLabels {
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError> {
        for i in 0..values.size()[0] {
            let slice = values.f_select(0, i)?;
            self.exporter.push(|out| copy_out(&slice, out))?;
        }
        Ok(())
    }
}

/// Copies a contiguous f32 `[y, x, output]` tensor, several rows a thread.
fn copy_out(slice: &Tensor, out: &mut [f32]) -> Result<(), SegmentError> {
    let height = slice.size()[0].max(1);
    let row = out.len() / height as usize;
    let rows = (COPY_BYTES / size_of::<f32>() / row.max(1)).max(1);
    let parts =
        (0..height).step_by(rows).map(|y| slice.f_narrow(0, y, (height - y).min(rows as i64))).collect::<Result<Vec<Tensor>, _>>()?;
    out.par_chunks_mut(rows * row).zip(parts).try_for_each(|(out, part)| {
        let length = out.len();
        part.f_copy_data(out, length)
    })?;
    Ok(())
}

/// The [`Exporter`]'s work in tensor operations, for slabs on a CUDA device: only labels leave it.
pub struct DeviceLabels {
    low: [usize; 3],
    high: [usize; 3],
    decision: Decision,
    label_of: Vec<u16>,
    device: Device,
    z: Vec<Tap>,
    y: Blend,
    x: Blend,
    /// Slices `held_from..` of the network's grid that are still needed, `[n, y, x, output]`.
    held: Option<Tensor>,
    held_from: usize,
    next: usize,
    /// Label slices made at once.
    together: usize,
    labels: Labels,
}

/// Interpolation along one axis of a tensor.
struct Blend {
    first: Tensor,
    second: Tensor,
    t: Tensor,
}

impl Blend {
    /// `taps` less `offset`, along dimension `axis` of four.
    fn new(taps: &[Tap], offset: usize, axis: usize, device: Device) -> Result<Blend, SegmentError> {
        let index = |of: fn(&Tap) -> usize| -> Result<Tensor, SegmentError> {
            let places: Vec<i64> = taps.iter().map(|tap| (of(tap) - offset) as i64).collect();
            Ok(Tensor::f_from_slice(&places)?.f_to_device(device)?)
        };
        let t: Vec<f32> = taps.iter().map(|tap| tap.t).collect();
        let mut shape = [1i64; 4];
        shape[axis] = -1;
        Ok(Blend {
            first: index(|tap| tap.first)?,
            second: index(|tap| tap.second)?,
            t: Tensor::f_from_slice(&t)?.f_to_device(device)?.f_view(shape)?,
        })
    }

    fn along(&self, axis: i64, values: &Tensor) -> Result<Tensor, SegmentError> {
        let rest = self.t.f_neg()?.f_add_scalar(1.0)?;
        let first = values.f_index_select(axis, &self.first)?.f_mul_(&rest)?;
        let second = values.f_index_select(axis, &self.second)?.f_mul_(&self.t)?;
        let mut sum = first;
        let _ = sum.f_add_(&second)?;
        Ok(sum)
    }
}

impl DeviceLabels {
    /// As [`Exporter::new`], on a device.
    pub fn new(
        low: [usize; 3],
        high: [usize; 3],
        separate_axis: Option<usize>,
        outputs: usize,
        decision: Decision,
        wide: bool,
        device: Device,
    ) -> Result<DeviceLabels, SegmentError> {
        let [z, y, x] = taps(low, high, separate_axis);
        let voxels = high.iter().product();
        let slice = high[1].max(low[1]) * high[2].max(low[2]) * outputs * size_of::<f32>();
        Ok(DeviceLabels {
            low,
            high,
            label_of: decision.labels(outputs),
            decision,
            device,
            z,
            y: Blend::new(&y, 0, 1, device)?,
            x: Blend::new(&x, 0, 2, device)?,
            held: None,
            held_from: 0,
            next: 0,
            together: (DEVICE_BYTES / slice.max(1)).max(1),
            labels: if wide { Labels::U16(vec![0; voxels]) } else { Labels::U8(vec![0; voxels]) },
        })
    }

    /// The labels, once all slices have come.
    pub fn finish(self) -> Result<Labels, SegmentError> {
        if self.next != self.high[0] {
            return Err(SegmentError::Inconsistent(format!("{} of {} label slices are written", self.next, self.high[0])));
        }
        Ok(self.labels)
    }

    /// Writes the label slices `range`, whose slices are held.
    fn write(&mut self, range: Range<usize>, held: &Tensor) -> Result<(), SegmentError> {
        let z = Blend::new(&self.z[range.clone()], self.held_from, 0, self.device)?;
        let values = self.x.along(2, &self.y.along(1, &z.along(0, held)?)?)?;
        let winners = match &self.decision {
            Decision::Argmax => values.f_argmax(-1, false)?,
            Decision::Regions { threshold, order } => {
                let mut winners = Tensor::f_zeros(&values.size()[..3], (Kind::Int64, self.device))?;
                for (i, region) in order.iter().enumerate() {
                    let inside = values.f_select(3, region.output as i64)?.f_gt(f64::from(*threshold))?;
                    winners = winners.f_masked_fill(&inside, i as i64 + 1)?;
                }
                winners
            }
        };
        let mut found = vec![0i32; range.len() * self.high[1] * self.high[2]];
        let count = found.len();
        winners.f_to_kind(Kind::Int)?.f_to_device(Device::Cpu)?.f_copy_data(&mut found, count)?;
        let at = range.start * self.high[1] * self.high[2];
        let label = |winner: i32| self.label_of.get(winner as usize).copied().unwrap_or(0);
        match &mut self.labels {
            Labels::U8(labels) => labels[at..at + count].iter_mut().zip(found).for_each(|(l, w)| *l = label(w) as u8),
            Labels::U16(labels) => labels[at..at + count].iter_mut().zip(found).for_each(|(l, w)| *l = label(w)),
        }
        Ok(())
    }
}

impl SlabSink for DeviceLabels {
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError> {
        let values = &values.f_to_device(self.device)?;
        let held = match self.held.take() {
            Some(held) => Tensor::f_cat(&[&held, values], 0)?,
            None => values.shallow_clone(),
        };
        let known = self.held_from + held.size()[0] as usize;
        if known > self.low[0] {
            return Err(SegmentError::Inconsistent(format!("slice {} of a grid of {} slices", known - 1, self.low[0])));
        }
        if values.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(SegmentError::NotFinite(known - 1));
        }
        let ready = self.next + self.z[self.next..].iter().take_while(|tap| tap.second < known).count();
        while self.next < ready {
            let end = ready.min(self.next + self.together);
            self.write(self.next..end, &held)?;
            self.next = end;
        }
        // A slab may be larger than what is needed of it later: a copy lets go of the rest.
        let from = self.z.get(self.next).map_or(known, |tap| tap.first.min(known));
        let keep = || held.f_narrow_copy(0, (from - self.held_from) as i64, (known - from) as i64);
        self.held = (known > from).then(keep).transpose()?;
        self.held_from = from;
        Ok(())
    }
}
