//! The blocks of the network, as functions of their parameters.
//!
//! Tensors are `[N, C, X, Y, Z]`. Parameters are whatever tensors they are built from: leaves that want a gradient for
//! training, or converted once for inference. Layers run plainly, by libtorch's own operators on any device and with
//! gradients, until [`Layers::optimise`] lays out their weights for inference on the CPU and turns the fused kernels on.

use super::fused::{self, EPSILON};
use super::{Architecture, Error, shim};
use std::borrow::Borrow;
use tch::{Device, Kind, Tensor};

/// Sees tensors by name as they are made: `encoder.{s}`, `encoder.{s}.{b}.{conv1,norm1,act1,conv2,norm2,conv3}`, the
/// same with `decoder.{u}`, `upsample.{u}` and `head.{u}`.
pub type Observer<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// An observer, or none: names are only put together for an observer.
pub(super) struct Probe<'a>(pub Option<Observer<'a>>);

impl Probe<'_> {
    fn see(&mut self, tensor: &Tensor, name: impl FnOnce() -> String) {
        if let Some(observer) = &mut self.0 {
            observer(&name(), tensor);
        }
    }
}

/// Where a parameter of a given name and shape comes from.
pub(super) type Source<'a> = &'a mut dyn FnMut(&str, &[i64]) -> Result<Tensor, Error>;

/// A convolution's weight: as libtorch has it, or laid out for oneDNN.
enum Weight {
    Plain(Tensor),
    Packed(Tensor),
}

/// A convolution with bias and padding `kernel / 2`.
struct Conv {
    weight: Weight,
    bias: Tensor,
    stride: [i64; 3],
    padding: [i64; 3],
}

impl Conv {
    fn build(name: &str, out: usize, cin: usize, kernel: [usize; 3], stride: [usize; 3], source: Source) -> Result<Conv, Error> {
        let [x, y, z] = kernel.map(|k| k as i64);
        Ok(Conv {
            weight: Weight::Plain(source(&format!("{name}.weight"), &[out as i64, cin as i64, x, y, z])?),
            bias: source(&format!("{name}.bias"), &[out as i64])?,
            stride: stride.map(|s| s as i64),
            padding: kernel.map(|k| (k / 2) as i64),
        })
    }

    /// Lays out the weight for channels-last inputs `[N, C, X, Y, Z]` of about this size, where oneDNN computes its kind.
    fn pack(&mut self, input: [usize; 3]) -> Result<(), Error> {
        if let Weight::Plain(weight) = &self.weight
            && matches!(weight.f_kind()?, Kind::Float | Kind::BFloat16)
        {
            let [x, y, z] = input.map(|edge| edge as i64);
            let packed = shim::pack_conv3d(weight, self.padding, self.stride, [1, weight.size()[1], x, y, z])?;
            self.weight = Weight::Packed(packed);
        }
        Ok(())
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.with_bias(x, Some(&self.bias))
    }

    /// For an InstanceNorm to follow, which takes any bias out again, or for a sum that brings the bias in.
    fn without_bias(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.with_bias(x, None)
    }

    fn with_bias(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Error> {
        match &self.weight {
            Weight::Plain(weight) => {
                let bias = bias.map(|b| b.f_to_kind(weight.f_kind()?)).transpose()?;
                Ok(x.f_conv3d(weight, bias, self.stride, self.padding, [1, 1, 1], 1)?)
            }
            Weight::Packed(weight) => {
                let bias = bias.map(|b| b.f_to_kind(x.f_kind()?)).transpose()?;
                shim::conv3d(x, weight, bias.as_ref(), self.padding, self.stride)
            }
        }
    }
}

/// InstanceNorm with affine parameters and no running statistics.
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn build(name: &str, channels: usize, source: Source) -> Result<Norm, Error> {
        let shape = [channels as i64];
        Ok(Norm { weight: source(&format!("{name}.weight"), &shape)?, bias: source(&format!("{name}.bias"), &shape)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        // For one instance the two are the same, but CUDA's batch norm keeps channels-last tensors as they are.
        if matches!(x.device(), Device::Cuda(_)) && x.size()[0] == 1 {
            return Ok(x.f_batch_norm(weight, bias, None::<&Tensor>, None::<&Tensor>, true, 0.0, EPSILON, true)?);
        }
        Ok(x.f_instance_norm(weight, bias, None::<&Tensor>, None::<&Tensor>, true, 0.0, EPSILON, true)?)
    }
}

fn activate(x: &Tensor) -> Result<Tensor, Error> {
    // tch's own leaky_relu has no slope argument; libtorch's default slope is the network's.
    Ok(x.f_leaky_relu()?)
}

/// BasicResBlock: conv, norm, activation, conv, norm, plus the input (through a 1×1×1 convolution in the first block of
/// a stage), activation.
struct Block {
    name: String,
    conv1: Conv,
    norm1: Norm,
    conv2: Conv,
    norm2: Norm,
    conv3: Option<Conv>,
}

impl Block {
    /// The same as [`forward`](Self::forward) up to rounding, by the fused kernels. The biases of conv1 and conv2 are left
    /// out, since the norms remove them; conv3's comes in with the sum.
    fn forward_fused(&self, x: &Tensor) -> Result<Tensor, Error> {
        let mut y = self.conv1.without_bias(x)?;
        fused::norm_act(&mut y, &self.norm1.weight, &self.norm1.bias, None)?;
        let mut y = self.conv2.without_bias(&y)?;
        match &self.conv3 {
            Some(conv3) => {
                let skip = conv3.without_bias(x)?;
                fused::norm_act(&mut y, &self.norm2.weight, &self.norm2.bias, Some((&skip, Some(&conv3.bias))))?;
            }
            None => fused::norm_act(&mut y, &self.norm2.weight, &self.norm2.bias, Some((x, None)))?,
        }
        Ok(y)
    }

    fn forward(&self, x: &Tensor, probe: &mut Probe) -> Result<Tensor, Error> {
        let mut see = |part: &str, tensor: Tensor| {
            probe.see(&tensor, || format!("{}.{part}", self.name));
            tensor
        };
        let y = see("conv1", self.conv1.forward(x)?);
        let y = see("norm1", self.norm1.forward(&y)?);
        let y = see("act1", activate(&y)?);
        let y = see("conv2", self.conv2.forward(&y)?);
        let y = see("norm2", self.norm2.forward(&y)?);
        let sum = match &self.conv3 {
            Some(conv3) => y.f_add(&see("conv3", conv3.forward(x)?))?,
            None => y.f_add(x)?,
        };
        activate(&sum)
    }
}

/// The blocks of one stage, of the encoder or the decoder.
struct Stage(Vec<Block>);

/// Everything that tells one stage's blocks from another's.
struct StagePlan {
    /// In the checkpoint: `conv_blocks_context.0`.
    prefix: String,
    /// For observers: `encoder.0`.
    name: String,
    depth: usize,
    cin: usize,
    cout: usize,
    kernel: [usize; 3],
    stride: [usize; 3],
}

impl Stage {
    fn build(plan: StagePlan, source: Source) -> Result<Stage, Error> {
        let StagePlan { prefix, name, depth, cin, cout, kernel, stride } = plan;
        let mut blocks = Vec::with_capacity(depth);
        for b in 0..depth {
            let (cin, stride) = if b == 0 { (cin, stride) } else { (cout, [1; 3]) };
            let part = |part: &str| format!("{prefix}.{b}.{part}");
            blocks.push(Block {
                name: format!("{name}.{b}"),
                conv1: Conv::build(&part("conv1"), cout, cin, kernel, stride, source)?,
                norm1: Norm::build(&part("norm1"), cout, source)?,
                conv2: Conv::build(&part("conv2"), cout, cout, kernel, [1; 3], source)?,
                norm2: Norm::build(&part("norm2"), cout, source)?,
                conv3: if b == 0 { Some(Conv::build(&part("conv3"), cout, cin, [1; 3], stride, source)?) } else { None },
            });
        }
        Ok(Stage(blocks))
    }

    fn forward(&self, x: &Tensor, fused: bool, probe: &mut Probe) -> Result<Tensor, Error> {
        let mut y: Option<Tensor> = None;
        for block in &self.0 {
            let x = y.as_ref().unwrap_or(x);
            y = Some(if fused { block.forward_fused(x)? } else { block.forward(x, probe)? });
        }
        Ok(y.unwrap_or_else(|| x.shallow_clone()))
    }
}

/// All layers of a STU-Net.
pub(super) struct Layers {
    encoder: Vec<Stage>,
    upsample: Vec<Conv>,
    factors: Vec<[i64; 3]>,
    decoder: Vec<Stage>,
    heads: Vec<Conv>,
    fused: bool,
}

impl Layers {
    /// Builds the layers, asking `source` for each parameter by its name and shape in the checkpoint.
    pub(super) fn build(a: &Architecture, source: Source) -> Result<Layers, Error> {
        let mut encoder = Vec::with_capacity(6);
        for s in 0..6 {
            let (cin, stride) = if s == 0 { (a.in_channels, [1; 3]) } else { (a.dims[s - 1], a.strides[s - 1]) };
            let (prefix, name) = (format!("conv_blocks_context.{s}"), format!("encoder.{s}"));
            let plan = StagePlan { prefix, name, depth: a.depth[s], cin, cout: a.dims[s], kernel: a.kernels[s], stride };
            encoder.push(Stage::build(plan, source)?);
        }
        let (mut upsample, mut factors, mut decoder, mut heads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for u in 0..5 {
            let s = 4 - u;
            upsample.push(Conv::build(&format!("upsample_layers.{u}.conv"), a.dims[s], a.dims[s + 1], [1; 3], [1; 3], source)?);
            factors.push(a.strides[s].map(|f| f as i64));
            let (prefix, name) = (format!("conv_blocks_localization.{u}"), format!("decoder.{u}"));
            let plan =
                StagePlan { prefix, name, depth: a.depth[s], cin: 2 * a.dims[s], cout: a.dims[s], kernel: a.kernels[s], stride: [1; 3] };
            decoder.push(Stage::build(plan, source)?);
            heads.push(Conv::build(&format!("seg_outputs.{u}"), a.num_classes, a.dims[s], [1; 3], [1; 3], source)?);
        }
        Ok(Layers { encoder, upsample, factors, decoder, heads, fused: false })
    }

    /// Lays out the weights for inference on the CPU, for patches of about this size, and runs by fused kernels from now on.
    /// The parameters must be on the CPU and inputs channels-last; gradients are no longer to be had.
    pub(super) fn optimise(&mut self, a: &Architecture, patch: [usize; 3]) -> Result<(), Error> {
        let sizes = a.stage_sizes(patch);
        let pack = |stage: &mut Stage, entry: [usize; 3], inside: [usize; 3]| -> Result<(), Error> {
            for (b, block) in stage.0.iter_mut().enumerate() {
                let input = if b == 0 { entry } else { inside };
                block.conv1.pack(input)?;
                block.conv2.pack(inside)?;
                if let Some(conv3) = &mut block.conv3 {
                    conv3.pack(input)?;
                }
            }
            Ok(())
        };
        for (s, stage) in self.encoder.iter_mut().enumerate() {
            pack(stage, sizes[s.saturating_sub(1)], sizes[s])?;
        }
        for u in 0..5 {
            pack(&mut self.decoder[u], sizes[4 - u], sizes[4 - u])?;
            self.upsample[u].pack(sizes[5 - u])?;
            self.heads[u].pack(sizes[4 - u])?;
        }
        self.fused = true;
        Ok(())
    }

    /// Runs encoder and decoder. `each` gets the decoder step (0 = lowest resolution) and its features; the last ones,
    /// at full resolution, are also returned.
    pub(super) fn features(
        &self,
        x: &Tensor,
        probe: &mut Probe,
        each: &mut dyn FnMut(usize, &Tensor, &mut Probe) -> Result<(), Error>,
    ) -> Result<Tensor, Error> {
        let fused = self.fused && probe.0.is_none();
        let mut skips = Vec::with_capacity(6);
        for (s, stage) in self.encoder.iter().enumerate() {
            let y = stage.forward(skips.last().unwrap_or(x), fused, probe)?;
            probe.see(&y, || format!("encoder.{s}"));
            skips.push(y);
        }
        let mut x = skips.pop().unwrap_or_else(|| x.shallow_clone());
        for (u, stage) in self.decoder.iter().enumerate() {
            let low = self.upsample[u].forward(&x)?;
            let joined = match skips.pop() {
                Some(skip) if fused => fused::repeat_concat(&low, self.factors[u], &skip)?,
                Some(skip) => {
                    let up = repeat(&low, self.factors[u])?;
                    probe.see(&up, || format!("upsample.{u}"));
                    Tensor::f_cat(&[up, skip], 1)?
                }
                None => low,
            };
            x = stage.forward(&joined, fused, probe)?;
            probe.see(&x, || format!("decoder.{u}"));
            each(u, &x, probe)?;
        }
        Ok(x)
    }

    /// The segmentation head of decoder step `u` (4 = full resolution): features → logits.
    pub(super) fn head(&self, u: usize, features: &Tensor, probe: &mut Probe) -> Result<Tensor, Error> {
        let head = &self.heads[u];
        let logits = head.forward(&features.f_to_kind(head.bias.f_kind()?)?)?;
        probe.see(&logits, || format!("head.{u}"));
        Ok(logits)
    }
}

/// Nearest-neighbour repeat by integer factors. It commutes with a 1×1×1 convolution, which is therefore run before it,
/// on an eighth of the voxels.
fn repeat(x: &Tensor, factors: [i64; 3]) -> Result<Tensor, Error> {
    if factors == [1; 3] {
        return Ok(x.shallow_clone());
    }
    let size = x.size();
    let out: [i64; 3] = std::array::from_fn(|axis| size[axis + 2] * factors[axis]);
    let [a, b, c] = factors.map(|f| f as f64);
    Ok(x.f_upsample_nearest3d(out, a, b, c)?)
}

/// The same numbers with the channel axis fastest in memory (libtorch's `channels_last_3d`), also where one channel or
/// one voxel makes the layout ambiguous and libtorch would leave the strides alone.
pub(super) fn channels_last(x: impl Borrow<Tensor>) -> Result<Tensor, Error> {
    let x = x.borrow();
    let size = x.size();
    let [n, c, a, b, d] = size.as_slice() else {
        return Err(Error::Input(format!("five axes were expected, found shape {size:?}")));
    };
    let packed = x.f_permute([0, 2, 3, 4, 1])?.f_contiguous()?;
    Ok(packed.f_as_strided([*n, *c, *a, *b, *d], [c * a * b * d, 1, c * b * d, c * d, *c], None)?)
}
