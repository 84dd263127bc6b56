//! A network with its weights on a device, for inference.

use super::conv::channels_last;
use super::layers::{Layers, Observer, Probe};
use super::{Architecture, Error, Precision, fused, shim, tensor_file};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The patch that convolution weights are laid out for; others work too.
const TYPICAL_PATCH: [usize; 3] = [128; 3];

/// A STU-Net ready to run. It belongs to the thread that runs the device; tensors stay on that thread.
pub struct Network {
    architecture: Architecture,
    device: Device,
    precision: Precision,
    layers: Layers,
    /// The head for the fused sums; none where the plain operators run.
    head: Option<fused::Head>,
}

impl Network {
    /// Reads `weights.safetensors` and puts the network on a device.
    ///
    /// `precision` may be [`Precision::Auto`]; [`precision`](Self::precision) tells what it became. Fails if the
    /// architecture is out of limits, if the file's tensors are not exactly the architecture's, or without memory.
    pub fn open(weights: &Path, architecture: &Architecture, device: Device, precision: Precision) -> Result<Network, Error> {
        architecture.validate()?;
        let tensors = tensor_file::read(weights, |found| architecture.check_tensors(found))?;
        Network::from_tensors(tensors, architecture, device, precision)
    }

    /// A network of given parameters, by checkpoint name; each must have the shape that the architecture asks for.
    pub fn from_tensors(
        mut tensors: HashMap<String, Tensor>,
        architecture: &Architecture,
        device: Device,
        precision: Precision,
    ) -> Result<Network, Error> {
        architecture.validate()?;
        architecture.check_tensors(&tensors.iter().map(|(name, t)| (name.clone(), t.size())).collect::<Vec<_>>())?;
        let precision = precision.resolve(device)?;
        shim::allow_tf32(false)?;
        if matches!(device, Device::Cuda(_)) {
            // Windows are all of one size: cuDNN times its algorithms on the first one and keeps the fastest.
            tch::Cuda::cudnn_set_benchmark(true);
        }
        shim::let_waiting_threads_sleep();
        let fused = device == Device::Cpu && precision != Precision::F64;
        let head = match (tensors.get("seg_outputs.4.weight"), tensors.get("seg_outputs.4.bias")) {
            (Some(weight), Some(bias)) if fused => Some(fused::Head::new(weight, bias)?),
            _ => None,
        };
        let layers = tch::no_grad(|| {
            let mut layers = Layers::build(architecture, &mut |name, _| {
                let missing = || Error::Input(format!("parameter {name} is missing"));
                let tensor = tensors.remove(name).ok_or_else(missing)?;
                Ok(tensor.f_detach()?.f_to_device(device)?.f_to_kind(precision.wide_kind())?)
            })?;
            if fused {
                layers.optimise(architecture, TYPICAL_PATCH, precision)?;
            } else {
                layers.convert(architecture, precision)?;
            }
            Ok::<_, Error>(layers)
        })?;
        Ok(Network { architecture: architecture.clone(), device, precision, layers, head })
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The concrete precision, never `Auto`: part of a result's identity.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Full-resolution logits `[N, classes, X, Y, Z]` of an image `[N, C, X, Y, Z]` (any kind, device and layout;
    /// normalised, network axis order). f32 (f64 with [`Precision::F64`]), on the network's device, channels last in
    /// memory: the logits of a voxel lie side by side.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, Error> {
        let features = self.features(input)?;
        self.head(&features)
    }

    /// All five outputs of deep supervision, full resolution first; each as [`forward`](Self::forward)'s.
    pub fn forward_all(&self, input: &Tensor) -> Result<Vec<Tensor>, Error> {
        self.run_all(input, &mut Probe(None))
    }

    /// As [`forward_all`](Self::forward_all), showing every tensor on the way to an observer: `encoder.0` … `encoder.5`,
    /// `encoder.1.0.conv1` and the like, `upsample.0`, `decoder.0`, `head.0` … `head.4` (4 = full resolution).
    pub fn forward_observed(&self, input: &Tensor, observer: Observer) -> Result<Vec<Tensor>, Error> {
        self.run_all(input, &mut Probe(Some(observer)))
    }

    fn run_all(&self, input: &Tensor, probe: &mut Probe) -> Result<Vec<Tensor>, Error> {
        let input = self.prepare(input)?;
        tch::no_grad(|| {
            let mut outputs = Vec::with_capacity(5);
            let mut head = |u: usize, features: &Tensor, probe: &mut Probe| {
                outputs.push(self.layers.head(u, features, probe)?);
                Ok(())
            };
            drop(self.layers.features(&input, probe, &mut head)?);
            outputs.reverse();
            Ok(outputs)
        })
    }

    /// Full-resolution decoder features `[N, dims[0], X, Y, Z]`, before the head, in the first stage's kind of number, channels
    /// last in memory. `head(features(x)) = forward(x)`, and the head is linear.
    pub fn features(&self, input: &Tensor) -> Result<Tensor, Error> {
        let input = self.prepare(input)?;
        tch::no_grad(|| self.layers.features(&input, &mut Probe(None), &mut |_, _, _| Ok(())))
    }

    /// The full-resolution head: features `[N, dims[0], ...]` of any spatial size and floating kind → logits
    /// `[N, classes, ...]`, f32 (f64 with [`Precision::F64`]).
    pub fn head(&self, features: &Tensor) -> Result<Tensor, Error> {
        tch::no_grad(|| self.layers.head(4, &features.f_to_device(self.device)?, &mut Probe(None)))
    }

    /// Adds `softmax(head(features)) * weights` to `sums`: a window's share of the averaged probabilities. On the CPU in one
    /// pass, without logits or probabilities in memory.
    ///
    /// `features` is `[1, dims[0], z, y, x]` as [`features`](Self::features) gives it, or some of its slices; `weights` f32
    /// `[z, y, x]`, contiguous; `sums` f32 `[z, y, x, classes]`, which may be a block of a larger tensor. All on the
    /// network's device.
    pub fn add_probabilities(&self, features: &Tensor, weights: &Tensor, sums: &mut Tensor) -> Result<(), Error> {
        tch::no_grad(|| match &self.head {
            Some(head) => fused::add_probabilities(head, features, weights, sums),
            None => {
                let logits = self.layers.head(4, features, &mut Probe(None))?;
                let probabilities = logits.f_softmax(1, self.precision.wide_kind())?.f_to_kind(Kind::Float)?;
                Network::add(&probabilities, weights, sums)
            }
        })
    }

    /// Adds `features * weights` to `sums` `[z, y, x, dims[0]]`; layouts as for
    /// [`add_probabilities`](Self::add_probabilities).
    pub fn add_features(&self, features: &Tensor, weights: &Tensor, sums: &mut Tensor) -> Result<(), Error> {
        tch::no_grad(|| match &self.head {
            Some(_) => fused::add_features(features, weights, sums),
            None => Network::add(&features.f_to_kind(Kind::Float)?, weights, sums),
        })
    }

    /// The plain twin of the fused sums: `values` `[1, c, z, y, x]`.
    fn add(values: &Tensor, weights: &Tensor, sums: &mut Tensor) -> Result<(), Error> {
        let voxels_first = values.f_squeeze_dim(0)?.f_permute([1, 2, 3, 0])?;
        let _ = sums.f_addcmul_(&voxels_first, &weights.f_unsqueeze(-1)?)?;
        Ok(())
    }

    /// Checks the shape and brings the image to the network's device, kind and layout.
    fn prepare(&self, input: &Tensor) -> Result<Tensor, Error> {
        let size = input.size();
        let &[n, c, x, y, z] = size.as_slice() else {
            return Err(Error::Input(format!("shape {size:?}; five axes [N, C, X, Y, Z] were expected")));
        };
        if n < 1 || c != self.architecture.in_channels as i64 {
            return Err(Error::Input(format!("shape {size:?}; this network takes {} channels", self.architecture.in_channels)));
        }
        self.architecture.check_patch([x, y, z].map(|edge| edge as usize)).map_err(|e| Error::Input(e.to_string()))?;
        let kind = self.precision.kind(self.architecture.dims[0]);
        tch::no_grad(|| channels_last(input.f_to_device(self.device)?.f_to_kind(kind)?))
    }
}
