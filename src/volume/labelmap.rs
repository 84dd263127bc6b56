//! Labels on the source grid.

use super::{Affine, Source};
use crate::models::LabelTable;

/// Label values, `[z, y, x]`, in the smallest type that holds the table's largest value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Up to 255 classes.
    U8(Vec<u8>),
    /// More than 255 classes.
    U16(Vec<u16>),
}

impl Labels {
    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            Labels::U8(v) => v.len(),
            Labels::U16(v) => v.len(),
        }
    }

    /// Whether there are no voxels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a flat index.
    pub fn get(&self, i: usize) -> u16 {
        match self {
            Labels::U8(v) => v[i].into(),
            Labels::U16(v) => v[i],
        }
    }
}

/// Labels on the grid of the source: `[z, y, x]`, z = the source's own slice index. Every value is in the table.
#[derive(Clone, Debug)]
pub struct LabelMap {
    labels: Labels,
    shape: [usize; 3],
    affine: Affine,
    table: LabelTable,
    source: Source,
    counts: Vec<u64>,
}

/// Why labels are not a label map.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LabelMapError {
    /// Shape and voxel count differ.
    #[error("{got} labels for a grid of {expected} voxels")]
    Length {
        /// Voxels of the grid.
        expected: usize,
        /// Labels given.
        got: usize,
    },
    /// A label that the table does not name.
    #[error("label value {0} is not in the model's table")]
    UnknownValue(u16),
}

impl LabelMap {
    /// Checks that the labels fill the grid and that every value is in the table.
    pub fn new(labels: Labels, shape: [usize; 3], affine: Affine, table: LabelTable, source: Source) -> Result<LabelMap, LabelMapError> {
        let expected = shape.iter().product();
        if labels.len() != expected {
            return Err(LabelMapError::Length { expected, got: labels.len() });
        }
        let mut counts = vec![0u64; 1 << 16];
        match &labels {
            Labels::U8(v) => v.iter().for_each(|&l| counts[l as usize] += 1),
            Labels::U16(v) => v.iter().for_each(|&l| counts[l as usize] += 1),
        }
        if let Some(bad) = (1..counts.len()).find(|&l| counts[l] > 0 && table.get(l as u16).is_none()) {
            return Err(LabelMapError::UnknownValue(bad as u16));
        }
        counts.truncate(table.max_value() as usize + 1);
        Ok(LabelMap { labels, shape, affine, table, source, counts })
    }

    /// The values, `[z, y, x]`.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// `[nz, ny, nx]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Index to patient LPS mm, as the volume's.
    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// What the values mean.
    pub fn table(&self) -> &LabelTable {
        &self.table
    }

    /// What the volume was made from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Voxels with this value.
    pub fn count(&self, value: u16) -> u64 {
        self.counts.get(value as usize).copied().unwrap_or(0)
    }

    /// The foreground values that occur, ascending.
    pub fn present(&self) -> Vec<u16> {
        (1..self.counts.len()).filter(|&v| self.counts[v] > 0).map(|v| v as u16).collect()
    }
}
