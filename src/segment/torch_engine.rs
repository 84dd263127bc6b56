//! The engine on libtorch.

use super::aggregate::{Blending, SlabSink, aggregate};
use super::air::{Framed, Part, part_above_air};
use super::export::Exporter;
use super::label_sinks::{DeviceLabels, HostLabels};
use super::memory::{Accumulation, Grids, MemoryLimits, Placement, bytes_needed, ladder, placements_on_device};
use super::postprocess::postprocess;
use super::tiles::Tiling;
use super::{Decision, DeviceChoice, DeviceMemory, Engine, Progress, SegmentError, SegmentOptions, Timings};
use crate::fault::Fault;
use crate::models::{Generation, Manifest};
use crate::stunet::{Error, Network, Precision, cuda_memory, empty_cuda_cache, upload};
use crate::sys::clock::Stopwatch;
use crate::volume::{LabelMap, Labels, Prepared};
use tch::{Device, Tensor};

/// Share of a CUDA device's free memory that a study may use where no limit is given.
const FREE_SHARE: f64 = 0.9;

/// What a study's windows need, whichever way they run.
struct Plan {
    /// The part of the network's grid that windows are laid over.
    part: Part,
    image: Image,
    tiling: Tiling,
    grids: Grids,
    separate_axis: Option<usize>,
    decision: Decision,
    mirror_axes: Vec<usize>,
}

/// A study's image.
enum Image {
    /// As it came: for a device that has memory of its own, which may run out.
    Numbers { data: Vec<f32>, channels: usize },
    /// `[channel, z, y, x]` of the part under windows, padded, on the host.
    Held(Tensor),
}

/// A model on a device. It stays on the thread that opened it, and so do its tensors.
pub struct TorchEngine {
    network: Network,
    manifest: Manifest,
    limits: MemoryLimits,
    exact: bool,
    every_rung: bool,
    timings: Timings,
    steps_down: usize,
}

impl TorchEngine {
    /// Loads a model's weights onto a device.
    ///
    /// `threads`: threads of one libtorch operation on this thread; `None` leaves libtorch's own choice.
    ///
    /// # Errors
    /// `device.unavailable` for a device or precision that is not there, `model.*` for weights that do not fit the manifest,
    /// `device.out_of_memory`.
    pub fn open(model: &Generation, device: DeviceChoice, precision: Precision, threads: Option<usize>) -> Result<TorchEngine, Fault> {
        if let Some(threads) = threads {
            tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
        }
        let manifest = &model.manifest;
        let device = device.resolve().map_err(SegmentError::from)?;
        let network = Network::open(&model.weights(), &manifest.architecture, device, precision)?;
        TorchEngine::new(network, manifest.clone())
    }

    /// An engine around a network that is open already.
    ///
    /// # Errors
    /// `model.bad_manifest` when the patch does not fit the architecture; `internal.bug` when the network is not the manifest's.
    pub fn new(network: Network, manifest: Manifest) -> Result<TorchEngine, Fault> {
        if *network.architecture() != manifest.architecture {
            return Err(SegmentError::Inconsistent("the network is not the one that the manifest describes".into()).into());
        }
        let patch = manifest.architecture.check_patch(manifest.inference.patch);
        patch.map_err(|e| SegmentError::Network(e.into()))?;
        let (limits, timings) = (MemoryLimits::default(), Timings::default());
        Ok(TorchEngine { network, manifest, limits, exact: false, every_rung: false, timings, steps_down: 0 })
    }

    /// The same engine, refusing studies that need more memory.
    pub fn with_limits(self, limits: MemoryLimits) -> TorchEngine {
        TorchEngine { limits, ..self }
    }

    /// The same engine, measuring every stage by itself also where that costs time: [`Timings::exact`].
    pub fn timed_exactly(self) -> TorchEngine {
        TorchEngine { exact: true, ..self }
    }

    /// The same engine, with the whole memory ladder on the CPU too, where the upper and the lowest rung save nothing: for tests.
    pub fn with_every_rung(self) -> TorchEngine {
        TorchEngine { every_rung: true, ..self }
    }

    /// The device it runs on.
    pub fn device(&self) -> Device {
        self.network.device()
    }

    /// The device by the name that users give it: `cpu` or `cuda:N`.
    pub fn device_name(&self) -> String {
        match self.device() {
            Device::Cuda(n) => DeviceChoice::Cuda(n).to_string(),
            _ => DeviceChoice::Cpu.to_string(),
        }
    }

    /// The precision it computes in, never `auto`: part of a result's identity.
    pub fn precision(&self) -> Precision {
        self.network.precision()
    }

    /// The model's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How a study of these grids would run here, the fastest way first; the others are for when memory runs out after all.
    /// `windows`: how many lie side by side, with their mirrored copies. Refuses a study that does not fit the limits.
    pub fn placements(&self, grids: &Grids, windows: usize) -> Result<Vec<Placement>, SegmentError> {
        let number = self.network.precision().activation_bytes(self.manifest.architecture.dims[0]);
        let limits = self.limits_now()?;
        let placements = match self.network.device() {
            Device::Cuda(_) => placements_on_device(&self.manifest, grids, number, windows, &limits),
            _ if self.every_rung => ladder(false, number, windows),
            // Batches gain nothing here, and the host is where everything is.
            _ => ladder(false, number, 1).into_iter().filter(|p| p.accumulation != Accumulation::Host).collect(),
        };
        if let Some(first) = placements.first() {
            bytes_needed(&self.manifest, grids, first).check(&limits, grids.network)?;
        }
        Ok(placements)
    }

    /// The limits, with what a CUDA device has now where none is set or less is free.
    fn limits_now(&self) -> Result<MemoryLimits, SegmentError> {
        let mut limits = self.limits;
        if let (Device::Cuda(index), None) = (self.network.device(), limits.device) {
            // What is held already serves this study too: the weights are counted in its need, the cache is free.
            let memory = cuda_memory(index)?;
            limits.device = Some(((memory.free as f64 * FREE_SHARE) as u64).saturating_add(memory.reserved));
        }
        Ok(limits)
    }

    /// The last way has failed: what it needs, and what there is.
    fn exhausted(&self, placement: &Placement, grids: &Grids, source: Error) -> SegmentError {
        let need = bytes_needed(&self.manifest, grids, placement);
        let limits = self.limits_now().unwrap_or(self.limits);
        let (needed, limit) = if placement.cuda { (need.device, limits.device) } else { (need.host, limits.host) };
        SegmentError::Exhausted { needed: needed.div_ceil(1 << 20), limit: limit.map(|bytes| bytes >> 20), source }
    }

    fn labels(
        &mut self,
        prepared: Prepared,
        options: SegmentOptions,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LabelMap, Fault> {
        let Prepared { data, channels, shape, back } = prepared;
        let inference = &self.manifest.inference;
        let grids = Grids { network: shape, cropped: back.cropped, source: back.source_shape };
        check(&data, channels, &grids, &self.manifest)?;
        let part = match options.skip_air {
            true => part_above_air(&data, shape, &self.manifest)?,
            false => shape.map(|edge| 0..edge),
        };
        let tiling = Tiling::new(part.clone().map(|range| range.len()), inference.patch, options.step)?;
        let mirror_axes = if options.mirror { inference.mirror_axes.clone() } else { Vec::new() };
        let placements = self.placements(&grids, tiling.row().count() << mirror_axes.len())?;
        let outputs = self.manifest.architecture.num_classes;
        let image = match self.network.device() {
            Device::Cuda(_) => Image::Numbers { data, channels },
            _ => Image::Held(padded(&data, channels, shape, &part, &tiling, Device::Cpu)?),
        };
        let plan = Plan {
            decision: Decision::new(&inference.regions, outputs, inference.aggregation)?,
            separate_axis: back.separate_axis,
            image,
            part,
            mirror_axes,
            tiling,
            grids,
        };
        self.steps_down = 0;
        let mut rest = placements.iter();
        let (labels, mut timings) = loop {
            let Some(placement) = rest.next() else {
                return Err(SegmentError::Inconsistent("no way to run a study".into()).into());
            };
            match self.run(&plan, placement, progress) {
                // The estimate was too low, or somebody else uses the device.
                Err(SegmentError::Network(source @ Error::OutOfMemory(_))) => {
                    empty_cuda_cache().map_err(SegmentError::from)?;
                    if rest.as_slice().is_empty() {
                        return Err(self.exhausted(placement, &plan.grids, source).into());
                    }
                    self.steps_down += 1;
                }
                done => break done?,
            }
        };
        let watch = Stopwatch::start();
        let map = self.finish(labels, grids.cropped, &back);
        timings.finish = watch.seconds();
        self.timings = timings;
        map
    }

    /// The labels on the cropped grid, one way.
    fn run(
        &self,
        plan: &Plan,
        placement: &Placement,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Labels, Timings), SegmentError> {
        let device = self.network.device();
        let inference = &self.manifest.inference;
        let blending = Blending {
            aggregation: inference.aggregation,
            regions: !inference.regions.is_empty(),
            mirror_axes: plan.mirror_axes.clone(),
            batch: placement.batch,
            accumulation: placement.accumulation,
        };
        let image = match &plan.image {
            Image::Held(image) => image.shallow_clone(),
            Image::Numbers { data, channels } => {
                padded(data, *channels, plan.grids.network, &plan.part, &plan.tiling, placement.accumulation.sums_on(device))?
            }
        };
        let (low, high, decision) = (plan.grids.network, plan.grids.cropped, plan.decision.clone());
        let outputs = self.manifest.architecture.num_classes;
        let wide = self.manifest.labels.max_value() > 255;
        let mut timings = Timings { exact: self.exact, ..Timings::default() };
        let mut run = |sink: &mut dyn SlabSink, timings: &mut Timings| {
            let image = image.shallow_clone();
            if plan.tiling.shape == low {
                return aggregate(&self.network, image, &plan.tiling, &blending, sink, timings, progress);
            }
            let mut sink = Framed::new(sink, &plan.part, low, &plan.decision, outputs);
            aggregate(&self.network, image, &plan.tiling, &blending, &mut sink, timings, progress)
        };
        let labels = match placement.accumulation.sums_on(device) {
            Device::Cuda(_) => {
                let thin = placement.accumulation != Accumulation::Device;
                let mut sink = DeviceLabels::new(low, high, plan.separate_axis, outputs, decision, wide, device)?.thin(thin);
                run(&mut sink, &mut timings)?;
                let watch = Stopwatch::start();
                let labels = sink.finish()?;
                timings.export += watch.seconds();
                labels
            }
            _ => {
                let mut sink = HostLabels::new(Exporter::new(low, high, plan.separate_axis, outputs, decision, wide));
                run(&mut sink, &mut timings)?;
                sink.finish()?
            }
        };
        Ok((labels, timings))
    }

    /// Post-processing and the way back to the source grid.
    fn finish(&self, mut labels: Labels, cropped: [usize; 3], back: &crate::volume::WayBack) -> Result<LabelMap, Fault> {
        postprocess(&mut labels, cropped, &self.manifest.postprocessing)?;
        back.label_map(labels)
    }
}

impl Engine for TorchEngine {
    fn segment(
        &mut self,
        prepared: Prepared,
        options: SegmentOptions,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LabelMap, Fault> {
        self.labels(prepared, options, progress)
    }

    fn memory(&self) -> Option<DeviceMemory> {
        let Device::Cuda(index) = self.network.device() else { return None };
        // A device that is lost is told of by the next study.
        let memory = cuda_memory(index).ok()?;
        let limit = self.limits.device.unwrap_or(memory.total).min(memory.total);
        Some(DeviceMemory { used: memory.allocated, reserved: memory.reserved, limit })
    }

    fn steps_down(&self) -> usize {
        self.steps_down
    }

    fn timings(&self) -> Vec<(&'static str, f64)> {
        self.timings.by_name()
    }
}

/// That the prepared grid fits itself and the model.
fn check(data: &[f32], channels: usize, grids: &Grids, manifest: &Manifest) -> Result<(), SegmentError> {
    let expected = manifest.architecture.in_channels;
    if channels != expected {
        return Err(SegmentError::Channels { expected, got: channels });
    }
    let numbers = grids.network.iter().try_fold(channels, |n, &edge| n.checked_mul(edge));
    if numbers != Some(data.len()) {
        return Err(SegmentError::Inconsistent(format!("{} numbers for {channels} channels of {:?} voxels", data.len(), grids.network)));
    }
    if grids.cropped.contains(&0) {
        return Err(SegmentError::Inconsistent("a cropped grid without voxels".into()));
    }
    Ok(())
}

/// A part of the image `[channel, z, y, x]` on a device, with zeros around it where it is smaller than the patch.
fn padded(data: &[f32], channels: usize, shape: [usize; 3], part: &Part, tiling: &Tiling, device: Device) -> Result<Tensor, SegmentError> {
    let [z, y, x] = shape.map(|n| n as i64);
    let mut image = upload(data, &[channels as i64, z, y, x], device)?;
    for (axis, range) in (1..).zip(part) {
        image = image.f_narrow(axis, range.start as i64, range.len() as i64)?;
    }
    if tiling.padded == tiling.shape {
        return Ok(image);
    }
    let (below, above) = (tiling.pad_below, tiling.pad_above());
    // Last axis first.
    let pad: Vec<i64> = (0..3).rev().flat_map(|a| [below[a] as i64, above[a] as i64]).collect();
    Ok(image.f_constant_pad_nd(pad)?)
}
