//! The blocks of the network, as functions of their parameters.
//!
//! Tensors are `[N, C, X, Y, Z]`. Parameters are whatever tensors they are built from: leaves that want a gradient for
//! training, or converted once for inference. Layers run plainly, by libtorch's own operators on any device and with
//! gradients, until [`Layers::optimise`] lays out their weights for inference on the CPU and turns the fused kernels on.
//!
//! The first convolution after an up-sampling sees each coarse voxel up to eight times. Where that pays, `optimise` splits
//! it in two: one over the skip, and a smaller one over the coarse tensor ([`fused::interleave_weight`]); their sum is
//! taken inside the norm, and the concatenated tensor is never made.

use super::conv::{Conv, channels_last};
use super::fused::{self, EPSILON, Terms};
use super::{Architecture, Error, Precision};
use tch::{Device, Kind, Tensor};

/// Sees tensors by name as they are made: `encoder.{s}`, `encoder.{s}.{b}.{conv1,norm1,act1,conv2,norm2,conv3}`, the
/// same with `decoder.{u}`, `upsample.{u}` and `head.{u}`. Optimised networks show no insides of blocks that they split.
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

/// Stages, from the finest on, whose decoder is split. Further down the grids are too small for it to pay.
const SPLIT_STAGES: usize = 3;

/// Where a parameter of a given name and shape comes from.
pub(super) type Source<'a> = &'a mut dyn FnMut(&str, &[i64]) -> Result<Tensor, Error>;

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
        if matches!(x.device(), Device::Cuda(_)) {
            if !x.requires_grad() {
                return self.one_by_one(x);
            }
            // For one instance the two are the same, but CUDA's batch norm keeps channels-last tensors as they are.
            if x.size()[0] == 1 {
                return Ok(x.f_batch_norm(weight, bias, None::<&Tensor>, None::<&Tensor>, true, 0.0, EPSILON, true)?);
            }
        }
        Ok(x.f_instance_norm(weight, bias, None::<&Tensor>, None::<&Tensor>, true, 0.0, EPSILON, true)?)
    }

    /// The same without gradients, as a batch norm of each instance: CUDA's kernels for it read and write channels-last
    /// tensors as they lie, where its instance norm makes a contiguous copy and a result that is no longer channels-last.
    /// (cuDNN's batch norm, which the plain call may choose, reduces in scaled integers that can overflow.)
    fn one_by_one(&self, x: &Tensor) -> Result<Tensor, Error> {
        let y = x.f_empty_like()?;
        let statistic = || self.weight.f_empty_like();
        for i in 0..x.size()[0] {
            let (weight, bias, none) = (Some(&self.weight), Some(&self.bias), || None::<&Tensor>);
            let (from, to) = (x.f_narrow(0, i, 1)?, y.f_narrow(0, i, 1)?);
            let _ = from.f_native_batch_norm_out(&to, &statistic()?, &statistic()?, weight, bias, none(), none(), true, 0.0, EPSILON)?;
        }
        Ok(y)
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
    split: Option<Split>,
}

/// What a split block does to the up-sampled half of its input, at the coarse size; its own conv1 and conv3 then take the
/// skip alone.
struct Split {
    phases: Conv,
    conv3: Conv,
}

impl Block {
    /// Splits the block; its input is the concatenation of a tensor repeated by 2 and a skip of as many channels.
    fn split(&mut self) -> Result<(), Error> {
        if let Some(conv3) = &mut self.conv3 {
            let half = conv3.weight()?.size()[1] / 2;
            let phases = fused::interleave_weight(&self.conv1.weight()?.f_narrow(1, 0, half)?)?;
            let low = conv3.weight()?.f_narrow(1, 0, half)?;
            self.split = Some(Split { phases: Conv::of(phases, 1), conv3: Conv::of(low, 0) });
            self.conv1.drop_inputs(half)?;
            conv3.drop_inputs(half)?;
        }
        Ok(())
    }

    /// Lays out all weights: `input` and `output` are the sizes before and after the block.
    fn pack(&mut self, kind: Kind, input: [usize; 3], output: [usize; 3]) -> Result<(), Error> {
        self.conv1.pack(kind, input)?;
        self.conv2.pack(kind, output)?;
        if let Some(conv3) = &mut self.conv3 {
            conv3.pack(kind, input)?;
        }
        if let Some(split) = &mut self.split {
            let coarse = input.map(|edge| edge / 2);
            split.phases.pack(kind, coarse)?;
            split.conv3.pack(kind, coarse)?;
        }
        Ok(())
    }

    /// The same as [`forward`](Self::forward) up to rounding, by the fused kernels; a split block takes the skip as `x` and
    /// the coarse tensor as `low`. The biases of conv1 and conv2 are left out, since the norms remove them; conv3's comes
    /// in with the sum.
    fn forward_fused(&self, x: &Tensor, low: Option<&Tensor>) -> Result<Tensor, Error> {
        let split = self.split.as_ref().zip(low);
        let mut y = self.conv1.without_bias(x)?;
        let phases = split.map(|(split, low)| split.phases.without_bias(low)).transpose()?;
        fused::norm_act(&mut y, &self.norm1.weight, &self.norm1.bias, &Terms { phases: phases.as_ref(), ..Terms::default() })?;
        drop(phases);
        y = self.conv2.without_bias(&y)?;
        let residual = self.conv3.as_ref().map(|conv3| conv3.without_bias(x)).transpose()?;
        let low = split.map(|(split, low)| split.conv3.without_bias(low)).transpose()?;
        let terms = Terms {
            phases: None,
            residual: Some(residual.as_ref().unwrap_or(x)),
            low: low.as_ref(),
            bias: self.conv3.as_ref().and_then(Conv::bias),
        };
        fused::norm_act(&mut y, &self.norm2.weight, &self.norm2.bias, &terms)?;
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
                split: None,
            });
        }
        Ok(Stage(blocks))
    }

    fn is_split(&self) -> bool {
        self.0.first().is_some_and(|block| block.split.is_some())
    }

    /// Runs the blocks; `low` is for a first block that is split.
    fn forward(&self, x: &Tensor, low: Option<&Tensor>, fused: bool, probe: &mut Probe) -> Result<Tensor, Error> {
        let mut y: Option<Tensor> = None;
        for block in &self.0 {
            let x = y.as_ref().unwrap_or(x);
            y = Some(if fused || block.split.is_some() { block.forward_fused(x, low)? } else { block.forward(x, probe)? });
        }
        Ok(y.unwrap_or_else(|| x.shallow_clone()))
    }
}

/// All layers of a STU-Net.
pub(super) struct Layers {
    encoder: Vec<Stage>,
    upsample: Vec<Conv>,
    factors: Vec<[usize; 3]>,
    decoder: Vec<Stage>,
    heads: Vec<Conv>,
    fused: bool,
    /// What each stage computes in, once weights are converted; before, in what the input is.
    kinds: Option<[Kind; 6]>,
    /// Whether tensors that change their kind become channels-last.
    channels_last: bool,
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
            factors.push(a.strides[s]);
            let (prefix, name) = (format!("conv_blocks_localization.{u}"), format!("decoder.{u}"));
            let plan =
                StagePlan { prefix, name, depth: a.depth[s], cin: 2 * a.dims[s], cout: a.dims[s], kernel: a.kernels[s], stride: [1; 3] };
            decoder.push(Stage::build(plan, source)?);
            heads.push(Conv::build(&format!("seg_outputs.{u}"), a.num_classes, a.dims[s], [1; 3], [1; 3], source)?);
        }
        Ok(Layers { encoder, upsample, factors, decoder, heads, fused: false, kinds: None, channels_last: false })
    }

    /// All weights but the heads' in another precision, channels-last; for inference on a device that runs plainly. Inputs must
    /// be in the first stage's kind of number.
    pub(super) fn convert(&mut self, a: &Architecture, precision: Precision) -> Result<(), Error> {
        self.each_convolution(a, precision, Conv::convert)?;
        self.channels_last = true;
        Ok(())
    }

    /// The same for learning: weights are converted as they lie, and gradients go through to the parameters.
    pub(super) fn cast(&mut self, a: &Architecture, precision: Precision) -> Result<(), Error> {
        self.each_convolution(a, precision, Conv::cast)
    }

    fn each_convolution(
        &mut self,
        a: &Architecture,
        precision: Precision,
        change: fn(&mut Conv, Kind) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let kinds = a.dims.map(|channels| precision.kind(channels));
        let convert = |stage: &mut Stage, kind: Kind| {
            stage.0.iter_mut().try_for_each(|block| {
                change(&mut block.conv1, kind)?;
                change(&mut block.conv2, kind)?;
                block.conv3.iter_mut().try_for_each(|conv3| change(conv3, kind))
            })
        };
        for (stage, kind) in self.encoder.iter_mut().zip(kinds) {
            convert(stage, kind)?;
        }
        for u in 0..5 {
            convert(&mut self.decoder[u], kinds[4 - u])?;
            change(&mut self.upsample[u], kinds[4 - u])?;
        }
        self.kinds = Some(kinds);
        Ok(())
    }

    /// Lays out the weights for inference on the CPU in f32 or bf16, for patches of about this size, and runs by fused
    /// kernels from now on. The parameters must be f32 on the CPU and inputs channels-last, in the first stage's kind of number;
    /// gradients are no longer to be had.
    pub(super) fn optimise(&mut self, a: &Architecture, patch: [usize; 3], precision: Precision) -> Result<(), Error> {
        let sizes = a.stage_sizes(patch);
        let kinds = a.dims.map(|channels| precision.kind(channels));
        let pack = |stage: &mut Stage, kind: Kind, entry: [usize; 3], inside: [usize; 3]| {
            let mut blocks = stage.0.iter_mut().enumerate();
            blocks.try_for_each(|(b, block)| block.pack(kind, if b == 0 { entry } else { inside }, inside))
        };
        for (s, stage) in self.encoder.iter_mut().enumerate() {
            pack(stage, kinds[s], sizes[s.saturating_sub(1)], sizes[s])?;
        }
        for u in 0..5 {
            let s = 4 - u;
            if s < SPLIT_STAGES && a.strides[s] == [2; 3] && a.kernels[s] == [3; 3] {
                self.decoder[u].0.iter_mut().take(1).try_for_each(Block::split)?;
            }
            pack(&mut self.decoder[u], kinds[s], sizes[s], sizes[s])?;
            self.upsample[u].pack(kinds[s], sizes[s + 1])?;
            self.heads[u].pack(Kind::Float, sizes[s])?;
        }
        self.fused = true;
        self.channels_last = true;
        self.kinds = Some(kinds);
        Ok(())
    }

    /// A tensor in the kind of number that a stage computes in.
    fn enter(&self, stage: usize, x: &Tensor) -> Result<Tensor, Error> {
        match self.kinds {
            Some(kinds) if kinds[stage] != x.f_kind()? => match self.channels_last {
                true => channels_last(x.f_to_kind(kinds[stage])?),
                false => Ok(x.f_to_kind(kinds[stage])?),
            },
            _ => Ok(x.shallow_clone()),
        }
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
            let x = self.enter(s, skips.last().unwrap_or(x))?;
            let y = stage.forward(&x, None, fused, probe)?;
            probe.see(&y, || format!("encoder.{s}"));
            skips.push(y);
        }
        let mut x = skips.pop().unwrap_or_else(|| x.shallow_clone());
        for (u, stage) in self.decoder.iter().enumerate() {
            let low = self.upsample[u].forward(&self.enter(4 - u, &x)?)?;
            drop(x);
            let Some(skip) = skips.pop() else { return Err(Error::Torch(format!("decoder step {u} has no skip"))) };
            let up = if fused { None } else { Some(repeat(&low, self.factors[u])?) };
            if let Some(up) = &up {
                probe.see(up, || format!("upsample.{u}"));
            }
            x = if stage.is_split() {
                stage.forward(&skip, Some(&low), fused, probe)?
            } else {
                let joined = match up {
                    None => fused::repeat_concat(&low, self.factors[u], &skip)?,
                    Some(up) => Tensor::f_cat(&[&up, &skip], 1)?,
                };
                drop((low, skip));
                stage.forward(&joined, None, fused, probe)?
            };
            probe.see(&x, || format!("decoder.{u}"));
            each(u, &x, probe)?;
        }
        Ok(x)
    }

    /// The segmentation head of decoder step `u` (4 = full resolution): features → logits.
    pub(super) fn head(&self, u: usize, features: &Tensor, probe: &mut Probe) -> Result<Tensor, Error> {
        let head = &self.heads[u];
        let kind = head.bias().map_or(Ok(Kind::Float), Tensor::f_kind)?;
        let logits = head.forward(&features.f_to_kind(kind)?)?;
        probe.see(&logits, || format!("head.{u}"));
        Ok(logits)
    }
}

/// Nearest-neighbour repeat by integer factors. It commutes with a 1×1×1 convolution, which is therefore run before it,
/// on an eighth of the voxels.
fn repeat(x: &Tensor, factors: [usize; 3]) -> Result<Tensor, Error> {
    if factors == [1; 3] {
        return Ok(x.shallow_clone());
    }
    let size = x.size();
    let out: [i64; 3] = std::array::from_fn(|axis| size[axis + 2] * factors[axis] as i64);
    let [a, b, c] = factors.map(|f| f as f64);
    Ok(x.f_upsample_nearest3d(out, a, b, c)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_normed_one_by_one() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let norm = Norm { weight: random(&[7]), bias: random(&[7]) };
        let x = channels_last(random(&[3, 7, 4, 6, 5]) * 3.0 + 2.0).expect("five axes");
        let (expected, got) = (norm.forward(&x).expect("norm"), norm.one_by_one(&x).expect("norm"));
        assert_eq!(got.stride(), x.stride());
        assert!((got - expected).abs().max().double_value(&[]) < 1e-5);
    }
}
