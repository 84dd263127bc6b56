//! Where finished slabs become labels: the exporter on the host, or the device itself.

use super::aggregate::SlabSink;
use super::export::{Exporter, Tap, taps};
use super::{Decision, SegmentError};
use crate::stunet::download;
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
            let slice = values.f_select(0, i)?.f_to_device(Device::Cpu)?;
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

/// The [`Exporter`]'s work in tensor operations, for slabs on a CUDA device. Labels leave it at the end, all at once: until
/// then nothing waits for it.
pub struct DeviceLabels {
    low: [usize; 3],
    high: [usize; 3],
    decision: Decision,
    device: Device,
    taps_z: Vec<Tap>,
    z: Blend,
    y: Blend,
    x: Blend,
    /// Slices `held_from..` of the network's grid that are still needed, `[n, y, x, output]`.
    held: Option<Tensor>,
    held_from: usize,
    next: usize,
    /// Label slices made at once.
    together: usize,
    /// The label of each winner, and the labels `[z, y, x]`: u8, or the bits of a u16 in an i16.
    label_of: Tensor,
    labels: Tensor,
    /// For each slab its last slice, and whether all of it was finite.
    finite: Vec<(usize, Tensor)>,
}

/// Interpolation along one axis of a tensor.
struct Blend {
    first: Tensor,
    second: Tensor,
    t: Tensor,
    rest: Tensor,
}

impl Blend {
    /// `taps` along dimension `axis` of four.
    fn new(taps: &[Tap], axis: usize, device: Device) -> Result<Blend, SegmentError> {
        let index = |of: fn(&Tap) -> usize| -> Result<Tensor, SegmentError> {
            let places: Vec<i64> = taps.iter().map(|tap| of(tap) as i64).collect();
            Ok(Tensor::f_from_slice(&places)?.f_to_device(device)?)
        };
        let mut shape = [1; 4];
        shape[axis] = taps.len() as i64;
        let t: Vec<f32> = taps.iter().map(|tap| tap.t).collect();
        let t = Tensor::f_from_slice(&t)?.f_view(shape)?.f_to_device(device)?;
        Ok(Blend { first: index(|tap| tap.first)?, second: index(|tap| tap.second)?, rest: t.f_neg()?.f_add_scalar(1.0)?, t })
    }

    /// The taps `range` of dimension 0, for a tensor that begins with slice `from`.
    fn part(&self, range: &Range<usize>, from: usize) -> Result<Blend, SegmentError> {
        let cut = |tensor: &Tensor| tensor.f_narrow(0, range.start as i64, range.len() as i64);
        let index = |tensor: &Tensor| cut(tensor)?.f_sub_scalar(from as i64);
        Ok(Blend { first: index(&self.first)?, second: index(&self.second)?, t: cut(&self.t)?, rest: cut(&self.rest)? })
    }

    fn along(&self, axis: i64, values: &Tensor) -> Result<Tensor, SegmentError> {
        let mut sum = values.f_index_select(axis, &self.first)?.f_mul_(&self.rest)?;
        let second = values.f_index_select(axis, &self.second)?.f_mul_(&self.t)?;
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
        let [taps_z, y, x] = taps(low, high, separate_axis);
        let slice = high[1].max(low[1]) * high[2].max(low[2]) * outputs * size_of::<f32>();
        let label_of = decision.labels(outputs);
        let label_of = match wide {
            true => Tensor::f_from_slice(&label_of.iter().map(|&label| label.cast_signed()).collect::<Vec<i16>>())?,
            false => Tensor::f_from_slice(&label_of.iter().map(|&label| label as u8).collect::<Vec<u8>>())?,
        };
        Ok(DeviceLabels {
            low,
            high,
            decision,
            device,
            z: Blend::new(&taps_z, 0, device)?,
            y: Blend::new(&y, 1, device)?,
            x: Blend::new(&x, 2, device)?,
            taps_z,
            held: None,
            held_from: 0,
            next: 0,
            together: (DEVICE_BYTES / slice.max(1)).max(1),
            labels: Tensor::f_zeros(high.map(|n| n as i64), (label_of.f_kind()?, device))?,
            label_of: label_of.f_to_device(device)?,
            finite: Vec::new(),
        })
    }

    /// With one slice of interpolated outputs at a time, where memory is short.
    pub fn thin(self, thin: bool) -> DeviceLabels {
        DeviceLabels { together: if thin { 1 } else { self.together }, ..self }
    }

    /// The labels, once all slices have come and the device has done its work.
    pub fn finish(self) -> Result<Labels, SegmentError> {
        if self.next != self.high[0] {
            return Err(SegmentError::Inconsistent(format!("{} of {} label slices are written", self.next, self.high[0])));
        }
        let flags: Vec<&Tensor> = self.finite.iter().map(|(_, finite)| finite).collect();
        if !flags.is_empty() {
            let finite = Vec::<bool>::try_from(Tensor::f_stack(&flags, 0)?)?;
            if let Some(at) = finite.iter().position(|finite| !finite) {
                return Err(SegmentError::NotFinite(self.finite[at].0));
            }
        }
        let labels = download(&self.labels)?;
        let count = labels.numel();
        Ok(if labels.f_kind()? == Kind::Uint8 {
            let mut narrow = vec![0u8; count];
            labels.f_copy_data(&mut narrow, count)?;
            Labels::U8(narrow)
        } else {
            let mut wide = vec![0i16; count];
            labels.f_copy_data(&mut wide, count)?;
            Labels::U16(wide.into_iter().map(i16::cast_unsigned).collect())
        })
    }

    /// Writes the label slices `range`, whose slices are held.
    fn write(&mut self, range: Range<usize>, held: &Tensor) -> Result<(), SegmentError> {
        let z = self.z.part(&range, self.held_from)?;
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
        let labels = self.label_of.f_index_select(0, &winners.f_reshape([-1])?)?.f_view(winners.size().as_slice())?;
        self.labels.f_narrow(0, range.start as i64, range.len() as i64)?.f_copy_(&labels)?;
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
        self.finite.push((known - 1, values.f_isfinite()?.f_all()?));
        let ready = self.next + self.taps_z[self.next..].iter().take_while(|tap| tap.second < known).count();
        while self.next < ready {
            let end = ready.min(self.next + self.together);
            self.write(self.next..end, &held)?;
            self.next = end;
        }
        // A slab may be larger than what is needed of it later: a copy lets go of the rest.
        let from = self.taps_z.get(self.next).map_or(known, |tap| tap.first.min(known));
        let keep = || held.f_narrow_copy(0, (from - self.held_from) as i64, (known - from) as i64);
        self.held = (known > from).then(keep).transpose()?;
        self.held_from = from;
        Ok(())
    }
}
