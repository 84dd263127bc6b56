//! What a STU-Net looks like: everything but the numbers in it.

use serde::{Deserialize, Serialize};

/// Largest number of input channels.
const MAX_IN_CHANNELS: usize = 64;
/// Largest number of output channels.
const MAX_CLASSES: usize = 4096;
/// Largest number of feature channels in a stage; STU-Net-H has 1536.
const MAX_DIM: usize = 8192;
/// Most residual blocks in a stage; STU-Net-H has 3.
const MAX_DEPTH: usize = 32;
/// Largest kernel edge.
const MAX_KERNEL: usize = 15;
/// Largest stride; nnU-Net plans 1 or 2.
const MAX_STRIDE: usize = 8;
/// Most parameters: 32 GB in f32, five times STU-Net-H.
const MAX_PARAMETERS: u64 = 8_000_000_000;
/// Longest edge of a patch.
const MAX_PATCH_EDGE: usize = 4096;
/// Most voxels in a patch: 1024³, far above what fits any device.
const MAX_PATCH_VOXELS: usize = 1 << 30;

/// The shape of a STU-Net. All but the strides follow from the names and shapes of a checkpoint's tensors; the strides
/// come from the plan (loading weights with wrong strides raises no error and gives wrong labels).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels: classes with the background, or regions.
    pub num_classes: usize,
    /// Feature channels of each stage, full resolution first.
    pub dims: [usize; 6],
    /// Residual blocks in each stage.
    pub depth: [usize; 6],
    /// Convolution kernel of each stage; padding is `kernel / 2`.
    pub kernels: [[usize; 3]; 6],
    /// `strides[d]` leads from stage `d` to stage `d + 1`; the decoder repeats by the same factors.
    pub strides: [[usize; 3]; 5],
}

/// The published sizes of STU-Net (paper, table 1): one design, four widths and depths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// 14.6 M parameters with 105 classes.
    S,
    /// 58.3 M parameters.
    B,
    /// 440 M parameters.
    L,
    /// 1457 M parameters.
    H,
}

impl Size {
    /// All four, smallest first.
    pub const ALL: [Size; 4] = [Size::S, Size::B, Size::L, Size::H];
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for Size {
    type Err = ArchitectureError;
    fn from_str(name: &str) -> Result<Size, ArchitectureError> {
        Size::ALL
            .into_iter()
            .find(|size| size.to_string().eq_ignore_ascii_case(name))
            .ok_or_else(|| ArchitectureError(format!("{name:?} is not a size of STU-Net; there are S, B, L and H")))
    }
}

/// Why an architecture can not be built, or does not fit a patch or a set of tensors.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ArchitectureError(pub String);

fn refuse<T>(why: String) -> Result<T, ArchitectureError> {
    Err(ArchitectureError(why))
}

impl Architecture {
    /// The strides of the released TotalSegmentator plan: four isotropic poolings, then one along the last axis only.
    pub const OFFICIAL_STRIDES: [[usize; 3]; 5] = [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]];

    /// A published size, with kernels 3×3×3 everywhere.
    pub fn named(size: Size, in_channels: usize, num_classes: usize, strides: [[usize; 3]; 5]) -> Architecture {
        let (base, depth) = match size {
            Size::S => (16, 1),
            Size::B => (32, 1),
            Size::L => (64, 2),
            Size::H => (96, 3),
        };
        Architecture {
            in_channels,
            num_classes,
            dims: [1, 2, 4, 8, 16, 16].map(|factor| base * factor),
            depth: [depth; 6],
            kernels: [[3; 3]; 6],
            strides,
        }
    }

    /// The published size whose widths and depths these are, if there is one.
    pub fn size(&self) -> Option<Size> {
        Size::ALL.into_iter().find(|&size| {
            let named = Architecture::named(size, self.in_channels, self.num_classes, self.strides);
            named.dims == self.dims && named.depth == self.depth
        })
    }

    /// The product of the strides per axis: every input axis must be divisible by it.
    pub fn divisor(&self) -> [usize; 3] {
        let mut d = [1; 3];
        for s in &self.strides {
            for (d, s) in d.iter_mut().zip(s) {
                *d *= s;
            }
        }
        d
    }

    /// Refuses what can not be a network, and what would need absurd memory, before anything is reserved.
    ///
    /// Kernels are odd, since an even kernel with padding `kernel / 2` would change the size of its input.
    pub fn validate(&self) -> Result<(), ArchitectureError> {
        let within = |what: &str, value: usize, max: usize| match (1..=max).contains(&value) {
            true => Ok(()),
            false => refuse(format!("{what} is {value}; it must lie in 1..={max}")),
        };
        within("in_channels", self.in_channels, MAX_IN_CHANNELS)?;
        within("num_classes", self.num_classes, MAX_CLASSES)?;
        for stage in 0..6 {
            within(&format!("dims[{stage}]"), self.dims[stage], MAX_DIM)?;
            within(&format!("depth[{stage}]"), self.depth[stage], MAX_DEPTH)?;
            for edge in self.kernels[stage] {
                within(&format!("an edge of kernels[{stage}]"), edge, MAX_KERNEL)?;
                if edge % 2 == 0 {
                    return refuse(format!("kernels[{stage}] is {:?}; kernel edges must be odd", self.kernels[stage]));
                }
            }
        }
        for (i, stride) in self.strides.iter().flatten().enumerate() {
            within(&format!("a stride of strides[{}]", i / 3), *stride, MAX_STRIDE)?;
        }
        match self.parameters() {
            n if n <= MAX_PARAMETERS => Ok(()),
            n => refuse(format!("the network has {n} parameters; at most {MAX_PARAMETERS} are accepted")),
        }
    }

    /// Refuses patches (network axis order, voxels) that the network can not take: an axis that is not divisible by its
    /// strides, or a bottleneck of a single voxel, for which InstanceNorm has no variance.
    pub fn check_patch(&self, patch: [usize; 3]) -> Result<(), ArchitectureError> {
        let divisor = self.divisor();
        for axis in 0..3 {
            if patch[axis] == 0 || patch[axis] > MAX_PATCH_EDGE || !patch[axis].is_multiple_of(divisor[axis]) {
                return refuse(format!(
                    "patch {patch:?}: axis {axis} must be a multiple of {} (the product of its strides), at least 1 and at most {MAX_PATCH_EDGE}",
                    divisor[axis]
                ));
            }
        }
        // Each edge is at most 2^12, so the product fits.
        if patch.iter().product::<usize>() > MAX_PATCH_VOXELS {
            return refuse(format!("patch {patch:?} has more than {MAX_PATCH_VOXELS} voxels"));
        }
        if patch == divisor {
            return refuse(format!("patch {patch:?} leaves a single voxel at the bottleneck; InstanceNorm needs at least two"));
        }
        Ok(())
    }

    /// Spatial size of each stage for a patch that [`check_patch`](Self::check_patch) accepts, full resolution first.
    pub fn stage_sizes(&self, patch: [usize; 3]) -> [[usize; 3]; 6] {
        let mut sizes = [patch; 6];
        for stage in 1..6 {
            sizes[stage] = std::array::from_fn(|axis| sizes[stage - 1][axis] / self.strides[stage - 1][axis]);
        }
        sizes
    }

    /// Multiply-accumulates of all convolutions for one patch, heads included (all five with `all_heads`, else the full-resolution one).
    pub fn macs(&self, patch: [usize; 3], all_heads: bool) -> u64 {
        let voxels = self.stage_sizes(patch).map(|size| size.iter().product::<usize>() as u64);
        let mut macs = 0;
        for (name, shape) in self.state_dict() {
            if !name.ends_with(".weight") || shape.len() != 5 {
                continue;
            }
            let weights = shape.iter().map(|&n| n as u64).product::<u64>();
            let mut parts = name.split('.');
            let (part, index) = (parts.next().unwrap_or_default(), parts.next().and_then(|i| i.parse::<usize>().ok()).unwrap_or(0));
            macs += match part {
                "conv_blocks_context" => weights * voxels[index],
                // As published: the 1×1×1 convolution is counted after the repeat.
                "upsample_layers" | "conv_blocks_localization" => weights * voxels[4 - index],
                _ if all_heads || index == 4 => weights * voxels[4 - index],
                _ => 0,
            };
        }
        macs
    }
}
