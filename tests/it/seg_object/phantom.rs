//! A CT series with labels, made for these tests: geometry by choice, and its DICOM files for tools that want them.

use dicom_core::smallvec::smallvec;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use std::collections::BTreeMap;
use std::path::Path;
use stunetd::config::Format;
use stunetd::dicom::{CopiedAttributes, RawElement, Uid};
use stunetd::models::{self, Generation, Label, LabelTable};
use stunetd::results::{JobDates, ResultRequest, Settings, Wanted};
use stunetd::series::{Case, Geometry, Irregular, PixelFormat, PixelSpacing, Plane, PlaneTiming, Rescale, Series};
use stunetd::volume::{Affine, LabelMap, Labels, Quantity, Source, Volume};

pub fn uid(text: &str) -> Uid {
    Uid::parse(text).expect("uid")
}

/// Where the voxels of a phantom lie: steps of the index in LPS mm, before slices are ordered.
#[derive(Clone, Debug)]
pub struct Grid {
    /// `[nz, ny, nx]`.
    pub shape: [usize; 3],
    /// Unit vectors along i (columns), j (rows), k (slices).
    pub axes: [[f64; 3]; 3],
    /// Distances along i, j, k.
    pub spacing: [f64; 3],
    /// Centre of voxel (0, 0, 0).
    pub origin: [f64; 3],
}

impl Grid {
    pub fn axial(shape: [usize; 3]) -> Grid {
        let axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        Grid { shape, axes, spacing: [0.75, 0.8, 2.5], origin: [-110.5, -95.25, 30.125] }
    }

    pub fn point(&self, [i, j, k]: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|r| {
            self.origin[r]
                + self.axes[0][r] * self.spacing[0] * i
                + self.axes[1][r] * self.spacing[1] * j
                + self.axes[2][r] * self.spacing[2] * k
        })
    }
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The series whose k-th file holds slice k of the grid. Its planes are ordered along `row × column`, so for a left-handed
/// grid they run against k.
pub fn series(grid: &Grid) -> Series {
    let [nz, ny, nx] = grid.shape;
    let normal = cross(grid.axes[0], grid.axes[1]);
    let mut planes: Vec<Plane> = (0..nz).map(|k| plane(grid, k)).collect();
    planes.sort_by(|a, b| dot(a.position, normal).total_cmp(&dot(b.position, normal)));
    let sign = dot(grid.axes[2], normal).signum();
    Series {
        study_uid: uid("1.2.826.0.1.1"),
        series_uid: uid("1.2.826.0.1.1.2"),
        frame_of_reference_uid: Some(uid("1.2.826.0.1.1.3")),
        modality: "CT".into(),
        planes,
        geometry: Geometry {
            rows: ny,
            columns: nx,
            row_direction: grid.axes[0],
            column_direction: grid.axes[1],
            pixel_spacing: PixelSpacing { dx: grid.spacing[0], dy: grid.spacing[1] },
            slice_step: grid.axes[2].map(|v| v * sign * grid.spacing[2]),
            slice_thickness: Some(3.0),
            uniform_spacing: true,
            sheared: false,
        },
        lossy: false,
        pet: None,
        warnings: vec![],
        copied: copied(&[
            (tags::STUDY_DATE, b"DA", b"20260102"),
            (tags::STUDY_TIME, b"TM", b"101112"),
            (tags::ACCESSION_NUMBER, b"SH", b"A17"),
            (tags::PATIENT_NAME, b"PN", b"Phantom^Box"),
            (tags::PATIENT_ID, b"LO", b"PH-1"),
            (tags::PATIENT_SEX, b"CS", b"O"),
        ]),
        selection: Default::default(),
        image_type: vec!["ORIGINAL".into(), "PRIMARY".into(), "AXIAL".into()],
        phase: None,
        unit: "HU".into(),
        hold: None,
    }
}

pub fn copied(elements: &[(dicom_core::Tag, &[u8; 2], &[u8])]) -> CopiedAttributes {
    let raw = |(tag, vr, value): &(dicom_core::Tag, &[u8; 2], &[u8])| RawElement { tag: (tag.0, tag.1), vr: **vr, value: value.to_vec() };
    CopiedAttributes { elements: elements.iter().map(raw).collect() }
}

fn plane(grid: &Grid, k: usize) -> Plane {
    Plane {
        path: format!("{k}.dcm").into(),
        sop_class_uid: uid(uids::CT_IMAGE_STORAGE),
        sop_instance_uid: uid(&format!("1.2.826.0.1.1.2.{}", k + 1)),
        frame: None,
        position: grid.point([0.0, 0.0, k as f64]),
        instance_number: Some(k as i32 + 1),
        pixels: PixelFormat {
            transfer_syntax: uid(uids::EXPLICIT_VR_LITTLE_ENDIAN),
            frames: 1,
            rows: grid.shape[1] as u16,
            columns: grid.shape[2] as u16,
            bits_allocated: 16,
            bits_stored: 16,
            high_bit: 15,
            signed: true,
            padding: None,
        },
        rescale: Rescale { slope: 1.0, intercept: -1024.0, explicit: true },
        timing: PlaneTiming::default(),
    }
}

/// Index (column, row, plane of the series) to LPS mm.
pub fn affine(series: &Series) -> Affine {
    let g = &series.geometry;
    let step = |v: [f64; 3], d: f64| v.map(|x| x * d);
    Affine::new(
        step(g.row_direction, g.pixel_spacing.dx),
        step(g.column_direction, g.pixel_spacing.dy),
        g.slice_step,
        series.planes[0].position,
    )
    .expect("invertible")
}

/// A table of `n` labels with values 1 to n and a few real codes.
pub fn table(n: u16) -> LabelTable {
    let code =
        |value: &str, scheme: &str, meaning: &str| models::Code { value: value.into(), scheme: scheme.into(), meaning: meaning.into() };
    let kidney = |side: (&str, &str)| (code("64033007", "SCT", "Kidney"), Some(code(side.0, "SCT", side.1)));
    let labels = (1..=n).map(|value| {
        let (name, (property_type, modifier)) = match value {
            1 => ("spleen".to_owned(), (code("78961009", "SCT", "Spleen"), None)),
            2 => ("kidney_right".to_owned(), kidney(("24028007", "Right"))),
            3 => ("kidney_left".to_owned(), kidney(("7771000", "Left"))),
            _ => (format!("structure_{value}"), (code("85756007", "SCT", "Tissue"), None)),
        };
        let hue = u32::from(value) * 2_654_435;
        Label {
            value,
            name,
            category: code("123037004", "SCT", "Anatomical Structure"),
            property_type,
            modifier,
            region: None,
            region_modifier: None,
            rgb: [(hue >> 16) as u8 | 0x40, (hue >> 8) as u8 | 0x40, hue as u8 | 0x40],
        }
    });
    LabelTable::new(labels.collect()).expect("table")
}

/// Ellipsoids of different sizes, one per label, by index `[z, y, x]`; they lie apart and are no mirror images of each other.
pub fn blobs([nz, ny, nx]: [usize; 3], n: u16) -> Vec<u8> {
    let mut labels = vec![0; nz * ny * nx];
    for value in 1..=n {
        let share = |step: f64| (f64::from(value) * step).fract() * 0.6 + 0.2;
        let centre = [share(0.37) * nz as f64, share(0.61) * ny as f64, share(0.23) * nx as f64];
        let radius = [nz as f64 / 8.0 + 0.6, ny as f64 / 9.0 + f64::from(value % 3), nx as f64 / 7.0 + f64::from(value % 2)];
        for (index, label) in labels.iter_mut().enumerate() {
            let at = [index / (ny * nx), index / nx % ny, index % nx];
            let distance: f64 = (0..3).map(|a| ((at[a] as f64 - centre[a]) / radius[a]).powi(2)).sum();
            if distance < 1.0 {
                *label = value as u8;
            }
        }
    }
    labels
}

pub fn label_map(series: &Series, labels: Vec<u8>, table: LabelTable) -> LabelMap {
    let shape = [series.planes.len(), series.geometry.rows, series.geometry.columns];
    let case = Case { channels: vec![series.clone()], grid: 0, volume_key: [0xAB; 32] };
    LabelMap::new(Labels::U8(labels), shape, affine(series), table, Source::Case(Box::new(case))).expect("labels")
}

/// A CT of soft tissue in which every label is a little denser.
pub fn volume(map: &LabelMap) -> Volume {
    let data = (0..map.labels().len()).map(|i| match map.labels().get(i) {
        0 => -80.0 + (i % 37) as f32,
        v => 30.0 + f32::from(v) * 5.0 + (i % 11) as f32,
    });
    let (shape, affine) = (map.shape(), *map.affine());
    Volume { data: data.collect(), channels: 1, shape, affine, quantity: vec![Quantity::Hu], source: map.source().clone() }
}

pub fn generation(table: &LabelTable) -> Generation {
    let manifest = models::Manifest {
        schema: 1,
        name: "phantom-model".into(),
        version: "1.0".into(),
        status: models::Status::Research,
        weights: models::Weights { file: "weights.safetensors".into(), sha256: "00".repeat(32), parameters: 1 },
        architecture: stunetd::stunet::Architecture {
            in_channels: 1,
            num_classes: table.len() + 1,
            dims: [4; 6],
            depth: [1; 6],
            kernels: [[3; 3]; 6],
            strides: [[2; 3]; 5],
        },
        preprocessing: models::Preprocessing {
            orientation: models::Orientation::AsStored,
            transpose: [0, 1, 2],
            spacing: [1.5; 3],
            order: models::NormalizationOrder::ResampleFirst,
            resampling: models::Resampling::Default,
            grid_channel: 0,
            channels: vec![],
        },
        inference: models::Inference { patch: [32; 3], aggregation: models::Aggregation::Softmax, mirror_axes: vec![], regions: vec![] },
        postprocessing: Default::default(),
        scope: Default::default(),
        provenance: models::Provenance {
            format: "stunetd".into(),
            trainer: "none".into(),
            epoch: None,
            files: BTreeMap::new(),
            importer: "test".into(),
        },
        labels: table.clone(),
    };
    Generation { dir: "model".into(), manifest, digest: "5d".repeat(32) }
}

static NOTHING: Wanted = Wanted { rejections: false, shares: std::collections::BTreeSet::new() };

pub fn request<'a>(model: &'a Generation, formats: &'a [Format]) -> ResultRequest<'a> {
    ResultRequest {
        replaces: None,
        wanted: &NOTHING,
        model,
        settings: Settings {
            step: 0.5,
            mirror: false,
            skip_air: false,
            precision: "f32".into(),
            irregular: Irregular::Refuse,
            assume_mbq: false,
        },
        formats,
        dates: JobDates { unix_seconds: 1_798_761_599, utc_offset_minutes: 60 },
        device: "cpu".into(),
    }
}

/// Writes the series as CT Image objects.
pub fn write_files(series: &Series, dir: &Path) {
    let g = &series.geometry;
    let text = |tag, vr, value: String| DataElement::new(tag, vr, PrimitiveValue::from(value));
    let join = |values: &[f64]| values.iter().map(|v| v.to_string()).collect::<Vec<_>>().join("\\");
    for plane in &series.planes {
        let mut object = InMemDicomObject::from_element_iter([
            text(tags::SOP_CLASS_UID, VR::UI, plane.sop_class_uid.to_string()),
            text(tags::SOP_INSTANCE_UID, VR::UI, plane.sop_instance_uid.to_string()),
            text(tags::STUDY_INSTANCE_UID, VR::UI, series.study_uid.to_string()),
            text(tags::SERIES_INSTANCE_UID, VR::UI, series.series_uid.to_string()),
            text(tags::FRAME_OF_REFERENCE_UID, VR::UI, series.frame_of_reference_uid.as_ref().expect("uid").to_string()),
            text(tags::MODALITY, VR::CS, "CT".into()),
            text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL".into()),
            text(tags::INSTANCE_NUMBER, VR::IS, plane.instance_number.expect("number").to_string()),
            text(tags::IMAGE_POSITION_PATIENT, VR::DS, join(&plane.position)),
            text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, join(&[g.row_direction, g.column_direction].concat())),
            text(tags::PIXEL_SPACING, VR::DS, join(&[g.pixel_spacing.dy, g.pixel_spacing.dx])),
            text(tags::SLICE_THICKNESS, VR::DS, "3".into()),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".into()),
            text(tags::RESCALE_SLOPE, VR::DS, "1".into()),
            text(tags::RESCALE_INTERCEPT, VR::DS, "-1024".into()),
            text(tags::PATIENT_BIRTH_DATE, VR::DA, String::new()),
            text(tags::STUDY_ID, VR::SH, String::new()),
            text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, String::new()),
        ]);
        for (tag, value) in [
            (tags::ROWS, g.rows as u16),
            (tags::COLUMNS, g.columns as u16),
            (tags::BITS_ALLOCATED, 16),
            (tags::BITS_STORED, 16),
            (tags::HIGH_BIT, 15),
            (tags::PIXEL_REPRESENTATION, 1),
            (tags::SAMPLES_PER_PIXEL, 1),
        ] {
            object.put(DataElement::new(tag, VR::US, PrimitiveValue::U16(smallvec![value])));
        }
        for element in &series.copied.elements {
            let tag = dicom_core::Tag(element.tag.0, element.tag.1);
            let value = String::from_utf8(element.value.clone()).expect("ASCII");
            object.put(text(tag, VR::from_binary(element.vr).expect("VR"), value));
        }
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(vec![1024; g.rows * g.columns].into())));
        let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        object.with_meta(meta).expect("meta").write_to_file(dir.join(&plane.path)).expect("written");
    }
}
