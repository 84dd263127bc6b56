//! Labels out of a published result, for objects that are written anew because only the header of their source was corrected.

use super::{ResultManifest, file_name, labels_digest};
use crate::config::Format;
use crate::dicom::seg::{self, ReadKind, SegObject};
use crate::models::LabelTable;
use crate::volume::{LabelMap, Labels, Source, Volume};
use std::collections::HashMap;
use std::path::Path;

/// The label map of the result in `dir`, on the grid of `volume`, which has to be the volume that it was made from. `None`: there is no
/// DICOM object to read it from, or it does not hold the labels that the manifest names.
pub fn restore(dir: &Path, manifest: &ResultManifest, volume: &Volume, table: &LabelTable) -> Option<LabelMap> {
    let objects =
        [Format::LabelMap, Format::Seg].map(file_name).into_iter().filter(|file| manifest.outputs.iter().any(|o| o.file == *file));
    objects
        .filter_map(|file| read(&seg::read(&dir.join(file)).ok()?, manifest, volume, table))
        .find(|labels| labels_digest(labels) == manifest.labels_sha256)
}

fn read(object: &SegObject, manifest: &ResultManifest, volume: &Volume, table: &LabelTable) -> Option<LabelMap> {
    let Source::Case(case) = &volume.source else { return None };
    let [_, rows, columns] = volume.shape;
    if (object.rows, object.columns) != (rows, columns) {
        return None;
    }
    let planes = case.grid_series()?.planes.iter().enumerate();
    let slice_of: HashMap<_, _> = planes.map(|(k, p)| ((&p.sop_instance_uid, p.frame.unwrap_or(0)), k)).collect();
    let value_of: HashMap<u16, u16> = manifest.labels.iter().map(|l| (l.segment, l.value)).collect();
    let mut values = vec![0u16; volume.shape.iter().product()];
    for (index, frame) in object.frames.iter().enumerate() {
        let source = frame.sources.first()?;
        let k = *slice_of.get(&(&source.sop_instance, source.frames.first().copied().unwrap_or(0)))?;
        let slice = values.get_mut(k * rows * columns..(k + 1) * rows * columns)?;
        let stored = object.frame(index).ok()?;
        match (object.kind, frame.segment) {
            (ReadKind::LabelMap { .. }, _) => slice.iter_mut().zip(stored).filter(|(_, s)| *s != 0).for_each(|(v, s)| *v = s),
            (ReadKind::Binary, Some(number)) => {
                let value = *value_of.get(&number)?;
                slice.iter_mut().zip(stored).filter(|(_, s)| *s != 0).for_each(|(v, _)| *v = value);
            }
            _ => return None,
        }
    }
    let labels = match u8::try_from(table.max_value()) {
        Ok(_) => Labels::U8(values.iter().map(|v| u8::try_from(*v).ok()).collect::<Option<_>>()?),
        Err(_) => Labels::U16(values),
    };
    LabelMap::new(labels, volume.shape, volume.affine, table.clone(), volume.source.clone()).ok()
}
