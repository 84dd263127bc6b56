//! One bit a pixel (PS3.5 8.1.1 and annex D): least significant bit first, row by row, frames one after the other
//! without byte alignment.

/// A label value: 8 or 16 bits.
pub trait Voxel: Copy + Eq + Send + Sync {
    /// The value as an index.
    fn index(self) -> usize;
}

impl Voxel for u8 {
    fn index(self) -> usize {
        self.into()
    }
}

impl Voxel for u16 {
    fn index(self) -> usize {
        self.into()
    }
}

/// Bytes that `bits` bits need.
pub const fn bytes_for(bits: u64) -> u64 {
    bits.div_ceil(8)
}

/// The bit plane of each label of a slice, in one pass over the slice. `slots[label]` is the plane that a label goes to,
/// `u16::MAX` for none; `planes` holds zeroed planes of `bytes_for(slice.len())` bytes each.
///
/// Neighbours mostly share their label, so eight pixels at a time are compared with their first.
pub fn split<T: Voxel>(slice: &[T], slots: &[u16], planes: &mut [u8]) {
    let stride = bytes_for(slice.len() as u64) as usize;
    let (bytes, rest) = slice.as_chunks::<8>();
    for (i, pixels) in bytes.iter().enumerate() {
        let first = pixels[0];
        if *pixels == [first; 8] {
            if let Some(plane) = slot(slots, first) {
                planes[plane * stride + i] = 0xFF;
            }
        } else {
            for (bit, &value) in pixels.iter().enumerate() {
                if let Some(plane) = slot(slots, value) {
                    planes[plane * stride + i] |= 1 << bit;
                }
            }
        }
    }
    for (bit, &value) in rest.iter().enumerate() {
        if let Some(plane) = slot(slots, value) {
            planes[plane * stride + bytes.len()] |= 1 << bit;
        }
    }
}

fn slot<T: Voxel>(slots: &[u16], value: T) -> Option<usize> {
    slots.get(value.index()).filter(|&&s| s != u16::MAX).map(|&s| s.into())
}

/// Which labels occur in a slice: sets `present[label]`.
pub fn mark_present<T: Voxel>(slice: &[T], present: &mut [bool]) {
    let Some(&start) = slice.first() else { return };
    let mut last = start;
    let mut mark = |value: T| {
        if let Some(p) = present.get_mut(value.index()) {
            *p = true;
        }
    };
    mark(last);
    let (bytes, rest) = slice.as_chunks::<8>();
    for pixels in bytes {
        if *pixels != [last; 8] {
            pixels.iter().for_each(|&v| mark(v));
            last = pixels[7];
        }
    }
    rest.iter().for_each(|&v| mark(v));
}

/// The same bits `shift` (0..8) places later, into `out`, whose length becomes `bytes_for(shift + bits)`; bits around
/// them are 0. `plane` holds `bits` bits from its first on, and zeros after.
pub fn shift_into(plane: &[u8], bits: u64, shift: u32, out: &mut Vec<u8>) {
    out.clear();
    let length = bytes_for(bits + u64::from(shift)) as usize;
    out.reserve(length);
    let mut carry = 0u16;
    for &byte in &plane[..bytes_for(bits) as usize] {
        carry |= u16::from(byte) << shift;
        out.push(carry as u8);
        carry >>= 8;
    }
    out.resize(length, carry as u8);
}

/// `count` bits from bit `first` on, as 0 or 1. `None` when the bytes end before.
pub fn unpack(bytes: &[u8], first: u64, count: usize) -> Option<Vec<u16>> {
    let end = first.checked_add(count as u64)?;
    if bytes_for(end) > bytes.len() as u64 {
        return None;
    }
    Some((first..end).map(|bit| u16::from(bytes[(bit / 8) as usize] >> (bit % 8) & 1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain twin of `split`: zero and not zero, bit by bit.
    fn pack(values: &[u16]) -> Vec<u8> {
        let mut plane = vec![0; bytes_for(values.len() as u64) as usize];
        for (i, _) in values.iter().enumerate().filter(|(_, v)| **v != 0) {
            plane[i / 8] |= 1 << (i % 8);
        }
        plane
    }

    fn labels() -> impl Strategy<Value = Vec<u8>> {
        // Runs, as in real label maps, so that uniform and mixed bytes both occur.
        proptest::collection::vec((0u8..5, 1usize..20), 1..30)
            .prop_map(|runs| runs.into_iter().flat_map(|(v, n)| std::iter::repeat_n(v, n)).collect())
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(v in proptest::collection::vec(0u16..2, 0..200)) {
            prop_assert_eq!(unpack(&pack(&v), 0, v.len()).unwrap(), v);
        }

        #[test]
        fn one_pass_makes_the_planes_that_single_passes_make(slice in labels(), wide in any::<bool>()) {
            // Label 2 has no plane.
            let slots = [u16::MAX, 0, u16::MAX, 1, 2];
            let stride = bytes_for(slice.len() as u64) as usize;
            let mut planes = vec![0; 3 * stride];
            if wide {
                split(&slice.iter().map(|&v| u16::from(v)).collect::<Vec<_>>(), &slots, &mut planes);
            } else {
                split(&slice, &slots, &mut planes);
            }
            for (label, plane) in [(1, 0), (3, 1), (4, 2)] {
                let single: Vec<u16> = slice.iter().map(|&v| u16::from(v == label)).collect();
                prop_assert_eq!(&planes[plane * stride..(plane + 1) * stride], &pack(&single)[..]);
            }
        }

        #[test]
        fn present_is_what_occurs(slice in labels()) {
            let mut present = [false; 5];
            mark_present(&slice, &mut present);
            for (v, p) in present.iter().enumerate() {
                prop_assert_eq!(*p, slice.contains(&(v as u8)));
            }
        }

        #[test]
        fn shifted_bits_are_found_again(v in proptest::collection::vec(0u16..2, 1..200), shift in 0u32..8) {
            let mut out = vec![9; 3];
            shift_into(&pack(&v), v.len() as u64, shift, &mut out);
            prop_assert_eq!(out.len() as u64, bytes_for(v.len() as u64 + u64::from(shift)));
            prop_assert_eq!(unpack(&out, shift.into(), v.len()).unwrap(), v.clone());
            let ones: u32 = out.iter().map(|b| b.count_ones()).sum();
            prop_assert_eq!(ones as usize, v.iter().filter(|&&b| b != 0).count());
        }
    }

    #[test]
    fn bits_past_the_end_are_not_made_up() {
        assert_eq!(unpack(&[0xFF], 4, 4), Some(vec![1; 4]));
        assert_eq!(unpack(&[0xFF], 4, 5), None);
        assert_eq!(unpack(&[], u64::MAX, 1), None);
    }
}
