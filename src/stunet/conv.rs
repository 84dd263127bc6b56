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
    kernel: [i64; 3],
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
            kernel: [x, y, z],
            stride: stride.map(|s| s as i64),
            padding: kernel.map(|k| (k / 2) as i64),
        })
    }

    /// A convolution without bias, of stride 1; `weight` is `[out, in, kernel, kernel, kernel]`.
    pub fn of(weight: Tensor, padding: i64) -> Conv {
        let kernel = [weight.size()[2]; 3];
        Conv { weight: Weight::Plain(weight), bias: None, kernel, stride: [1; 3], padding: [padding; 3] }
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

    /// Turns the weight into a kind and leaves it as it lies; gradients go through to what it was made from.
    pub fn cast(&mut self, kind: Kind) -> Result<(), Error> {
        self.weight = Weight::Plain(self.weight()?.f_to_kind(kind)?);
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
        let weight = match &self.weight {
            Weight::Plain(weight) => return Ok(x.f_conv3d(weight, bias, self.stride, self.padding, [1, 1, 1], 1)?),
            Weight::Packed(weight) => weight,
        };
        let run = |x: &Tensor| shim::conv3d(x, weight, bias.as_ref(), self.padding, self.stride);
        if x.size()[2] != 1 || x.f_kind()? != Kind::BFloat16 {
            return run(x);
        }
        // oneDNN reads uninitialised memory where a bf16 input has one slice and few channels: one with AVX512-BF16, fewer than 16
        // with AMX. A slice of zeros behind it is what the padding would be, and the outputs that it adds are cut off.
        let kernel = self.kernel[0];
        let slices = (1 + 2 * self.padding[0] - kernel) / self.stride[0] + 1;
        let padded = channels_last(x.f_constant_pad_nd([0, 0, 0, 0, 0, 1])?)?;
        channels_last(run(&padded)?.f_narrow(2, 0, slices)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn packed_convolutions_read_only_their_input() {
        // From here on this process finds large numbers in memory that it has just reserved.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: mallopt stores a number.
        unsafe {
            libc::mallopt(libc::M_PERTURB, 0x80);
        }
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 1.0 / 128.0)] {
            for (cin, cout) in [(1, 1), (1, 16), (3, 5), (8, 8), (15, 2), (16, 1), (17, 33)] {
                for (kernel, padding, stride) in [(1, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 1), (3, 1, 2), (5, 2, 1)] {
                    for (n, [x, y, z]) in [(1, [1, 1, 1]), (1, [1, 1, 5]), (2, [1, 4, 3]), (2, [2, 1, 5]), (1, [2, 4, 3]), (1, [6, 5, 16])]
                    {
                        let input =
                            channels_last(Tensor::randn([n, cin, x, y, z], (Kind::Float, Device::Cpu)).to_kind(kind)).expect("five axes");
                        let weight = Tensor::randn([cout, cin, kernel, kernel, kernel], (Kind::Float, Device::Cpu)).to_kind(kind);
                        let mut conv = Conv { stride: [stride; 3], ..Conv::of(weight.shallow_clone(), padding) };
                        conv.pack(kind, [128; 3]).expect("packed");
                        let got = conv.forward(&input).expect("convolution").to_kind(Kind::Double);
                        let wide = |t: &Tensor| t.to_kind(Kind::Double);
                        let expected = wide(&input).conv3d(&wide(&weight), None::<&Tensor>, stride, padding, 1, 1);
                        let worst = (got - &expected).abs().max().double_value(&[]);
                        let allowed = tolerance * expected.abs().max().double_value(&[]);
                        assert!(worst <= allowed, "{kind:?} {cin} → {cout}, kernel {kernel}, stride {stride}, {n}×{x}×{y}×{z}: {worst:e}");
                    }
                }
            }
        }
    }
}
