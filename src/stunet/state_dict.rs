//! The tensors of a STU-Net by name: their order and shapes as in the official checkpoints, and the way back from them.

use super::{Architecture, ArchitectureError};

/// Most tensors that are looked at when an architecture is inferred.
const MAX_TENSORS: usize = 10_000;

impl Architecture {
    /// Names and shapes of all parameters, in checkpoint order. Convolution weights are `[out, in, kx, ky, kz]`.
    pub fn state_dict(&self) -> Vec<(String, Vec<i64>)> {
        let mut list = Vec::new();
        let mut pair = |name: String, weight: &[usize]| {
            list.push((format!("{name}.weight"), weight.iter().map(|&n| n as i64).collect::<Vec<_>>()));
            list.push((format!("{name}.bias"), vec![weight[0] as i64]));
        };
        let blocks =
            |prefix: String, depth: usize, cin: usize, cout: usize, [x, y, z]: [usize; 3], pair: &mut dyn FnMut(String, &[usize])| {
                for block in 0..depth {
                    let cin = if block == 0 { cin } else { cout };
                    let name = |part: &str| format!("{prefix}.{block}.{part}");
                    pair(name("conv1"), &[cout, cin, x, y, z]);
                    pair(name("norm1"), &[cout]);
                    pair(name("conv2"), &[cout, cout, x, y, z]);
                    pair(name("norm2"), &[cout]);
                    if block == 0 {
                        pair(name("conv3"), &[cout, cin, 1, 1, 1]);
                    }
                }
            };
        let (dims, depth, kernels) = (&self.dims, &self.depth, &self.kernels);
        for s in 0..6 {
            let cin = if s == 0 { self.in_channels } else { dims[s - 1] };
            blocks(format!("conv_blocks_context.{s}"), depth[s], cin, dims[s], kernels[s], &mut pair);
        }
        for u in 0..5 {
            pair(format!("upsample_layers.{u}.conv"), &[dims[4 - u], dims[5 - u], 1, 1, 1]);
        }
        for u in 0..5 {
            let s = 4 - u;
            blocks(format!("conv_blocks_localization.{u}"), depth[s], 2 * dims[s], dims[s], kernels[s], &mut pair);
        }
        for u in 0..5 {
            pair(format!("seg_outputs.{u}"), &[self.num_classes, dims[4 - u], 1, 1, 1]);
        }
        list
    }

    /// Number of parameters. Meant for architectures within [`validate`](Self::validate)'s limits on each number, and can not overflow there.
    pub fn parameters(&self) -> u64 {
        self.state_dict().iter().map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    /// The architecture whose tensors these are, in any order, without `module.` or other prefixes. Only the strides can
    /// not be seen in the tensors. Fails, naming the first tensors at fault, unless the names and shapes are exactly
    /// those of [`state_dict`](Self::state_dict).
    pub fn infer(tensors: &[(String, Vec<i64>)], strides: [[usize; 3]; 5]) -> Result<Architecture, ArchitectureError> {
        if tensors.len() > MAX_TENSORS {
            return Err(ArchitectureError(format!("{} tensors; at most {MAX_TENSORS} are accepted", tensors.len())));
        }
        let by_name: std::collections::HashMap<&str, &[i64]> = tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        let weight = |name: String| -> Result<[usize; 5], ArchitectureError> {
            let shape =
                by_name.get(name.as_str()).ok_or_else(|| ArchitectureError(format!("tensor {name} is missing; this is not a STU-Net")))?;
            let mut sizes = [0; 5];
            if shape.len() != 5 || shape.iter().any(|&n| n < 1) {
                return Err(ArchitectureError(format!("tensor {name} has shape {shape:?}; five axes were expected")));
            }
            for (size, &n) in sizes.iter_mut().zip(shape.iter()) {
                *size = n as usize;
            }
            Ok(sizes)
        };
        let mut architecture = Architecture {
            in_channels: weight("conv_blocks_context.0.0.conv1.weight".into())?[1],
            num_classes: weight("seg_outputs.4.weight".into())?[0],
            dims: [0; 6],
            depth: [0; 6],
            kernels: [[0; 3]; 6],
            strides,
        };
        for s in 0..6 {
            let [out, _, x, y, z] = weight(format!("conv_blocks_context.{s}.0.conv1.weight"))?;
            architecture.dims[s] = out;
            architecture.kernels[s] = [x, y, z];
            architecture.depth[s] =
                (0..).find(|b| !by_name.contains_key(format!("conv_blocks_context.{s}.{b}.conv1.weight").as_str())).unwrap_or(0);
        }
        architecture.validate()?;
        architecture.check_tensors(tensors)?;
        Ok(architecture)
    }

    /// Whether names and shapes, in any order, are exactly those of this architecture; the message names the first few that are not.
    pub fn check_tensors(&self, tensors: &[(String, Vec<i64>)]) -> Result<(), ArchitectureError> {
        let mut left: std::collections::BTreeMap<&str, &[i64]> = tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        let mut wrong = Vec::new();
        for (name, shape) in self.state_dict() {
            match left.remove(name.as_str()) {
                None => wrong.push(format!("{name} is missing")),
                Some(found) if found != shape => wrong.push(format!("{name} has shape {found:?} instead of {shape:?}")),
                Some(_) => {}
            }
        }
        wrong.extend(left.keys().map(|name| format!("{name:?} does not belong to it")));
        if left_twice(tensors) {
            wrong.push("a name occurs twice".into());
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let more = if wrong.len() > 3 { format!(", and {} more", wrong.len() - 3) } else { String::new() };
        Err(ArchitectureError(format!("the tensors are not those of the architecture: {}{more}", wrong[..wrong.len().min(3)].join(", "))))
    }
}

fn left_twice(tensors: &[(String, Vec<i64>)]) -> bool {
    let mut seen = std::collections::HashSet::new();
    !tensors.iter().all(|(name, _)| seen.insert(name))
}
