//! What leaves the house: DICOM-SEG, NIfTI labels, preview picture, manifest. Identity is deterministic (invariant 4).
