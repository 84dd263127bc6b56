//! A convolution: as libtorch runs it anywhere, or laid out once for inference on the CPU.

use super::layers::Source;
use super::{Error, shim};
use std::borrow::Borrow;
use tch::{Kind, Tensor};

/// A convolution's weight: as libtorch has it, or laid out for oneDNN.
enum Weight {
    Plain(Tensor),
    Packed(Tensor),
}

/// A convolution. Groups and dilation are 1.
pub(super) struct Conv {
    weight: Weight,
    bias: Option<Tensor>,
    stride: [i64; 3],
    padding: [i64; 3],
}

impl Conv {
    /// Asks `source` for the parameters; the padding is `kernel / 2`.
    pub fn build(name: &str, out: usize, cin: usize, kernel: [usize; 3], stride: [usize; 3], source: Source) -> Result<Conv, Error> {
        let [x, y, z] = kernel.map(|k| k as i64);
        Ok(Conv {
            weight: Weight::Plain(source(&format!("{name}.weight"), &[out as i64, cin as i64, x, y, z])?),
            bias: Some(source(&format!("{name}.bias"), &[out as i64])?),
            stride: stride.map(|s| s as i64),
            padding: kernel.map(|k| (k / 2) as i64),
        })
    }

    /// A convolution without bias, of stride 1.
    pub fn of(weight: Tensor, padding: i64) -> Conv {
        Conv { weight: Weight::Plain(weight), bias: None, stride: [1; 3], padding: [padding; 3] }
    }

    /// The weight `[out, in, kx, ky, kz]`, unless it is packed.
    pub fn weight(&self) -> Result<&Tensor, Error> {
        match &self.weight {
            Weight::Plain(weight) => Ok(weight),
            Weight::Packed(_) => Err(Error::Torch("a packed weight is opaque".into())),
        }
    }

    /// The bias `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Leaves only the input channels from `first` on.
    pub fn drop_inputs(&mut self, first: i64) -> Result<(), Error> {
        let weight = self.weight()?;
        self.weight = Weight::Plain(weight.f_narrow(1, first, weight.size()[1] - first)?);
        Ok(())
    }

    /// Turns the weight into a kind, channels-last; the bias stays as it is.
    pub fn convert(&mut self, kind: Kind) -> Result<(), Error> {
        self.weight = Weight::Plain(channels_last(self.weight()?.f_to_kind(kind)?)?);
        Ok(())
    }

    /// Turns the weight into f32 or bf16 and lays it out for channels-last inputs `[N, C, X, Y, Z]` of about this size.
    pub fn pack(&mut self, kind: Kind, input: [usize; 3]) -> Result<(), Error> {
        self.convert(kind)?;
        let weight = self.weight()?;
        let [x, y, z] = input.map(|edge| edge as i64);
        self.weight = Weight::Packed(shim::pack_conv3d(weight, self.padding, self.stride, [1, weight.size()[1], x, y, z])?);
        Ok(())
    }

    /// Convolves, and adds the bias if there is one.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.with_bias(x, self.bias.as_ref())
    }

    /// For an InstanceNorm to follow, which takes any bias out again, or for a sum that brings the bias in.
    pub fn without_bias(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.with_bias(x, None)
    }

    fn with_bias(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Error> {
        let bias = bias.map(|b| b.f_to_kind(x.f_kind()?)).transpose()?;
        match &self.weight {
            Weight::Plain(weight) => Ok(x.f_conv3d(weight, bias, self.stride, self.padding, [1, 1, 1], 1)?),
            Weight::Packed(weight) => shim::conv3d(x, weight, bias.as_ref(), self.padding, self.stride),
        }
    }
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
