//! Where a resize reads its input.

/// A three-dimensional array that can be read row by row; rows run along the last axis.
pub trait Rows: Sync + Sized {
    /// The shape.
    fn shape(&self) -> [usize; 3];

    /// Writes the row at index `(a, b)` of the first two axes; `row` is as long as the last axis.
    fn read(&self, a: usize, b: usize, row: &mut [f32]);

    /// The same array with its axes in another order: axis `i` of the result is axis `order[i]` of this one.
    fn reordered(&self, order: [usize; 3]) -> Self;
}

/// A window into an array in memory: any order and direction of axes.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a, T> {
    data: &'a [T],
    start: usize,
    strides: [isize; 3],
    shape: [usize; 3],
}

impl<'a, T: Copy> Grid<'a, T> {
    /// All of a contiguous array. Panics if `data` has another length.
    pub fn new(data: &'a [T], shape: [usize; 3]) -> Grid<'a, T> {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "data and shape");
        Grid { data, start: 0, strides: [(shape[1] * shape[2]) as isize, shape[2] as isize, 1], shape }
    }

    /// The same array with its axes in another order: axis `i` of the result is axis `order[i]` of this one.
    pub fn reordered(&self, order: [usize; 3]) -> Grid<'a, T> {
        Grid { strides: order.map(|a| self.strides[a]), shape: order.map(|a| self.shape[a]), ..*self }
    }

    /// The same array, running backwards along the axes marked.
    pub fn flipped(&self, axes: [bool; 3]) -> Grid<'a, T> {
        let mut grid = *self;
        for (axis, _) in axes.iter().enumerate().filter(|(a, flip)| **flip && self.shape[*a] > 0) {
            grid.start = grid.start.wrapping_add_signed(grid.strides[axis] * (grid.shape[axis] as isize - 1));
            grid.strides[axis] = -grid.strides[axis];
        }
        grid
    }

    /// The part from `start` of the given shape, which must lie inside.
    pub fn cropped(&self, start: [usize; 3], shape: [usize; 3]) -> Grid<'a, T> {
        assert!((0..3).all(|a| start[a] + shape[a] <= self.shape[a]), "the crop lies inside");
        Grid { start: self.at(start), shape, ..*self }
    }

    /// The shape.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn at(&self, index: [usize; 3]) -> usize {
        (0..3).fold(self.start, |at, a| at.wrapping_add_signed(self.strides[a] * index[a] as isize))
    }

    /// The values of the row at index `(a, b)` of the first two axes.
    pub fn row(&self, a: usize, b: usize) -> impl DoubleEndedIterator<Item = T> + ExactSizeIterator + use<'a, T> {
        let (start, stride, data) = (self.at([a, b, 0]), self.strides[2], self.data);
        (0..self.shape[2]).map(move |c| data[start.wrapping_add_signed(c as isize * stride)])
    }

    /// Copies the row at index `(a, b)` of the first two axes; `row` is as long as the last axis.
    pub fn read(&self, a: usize, b: usize, row: &mut [T]) {
        let (start, n) = (self.at([a, b, 0]), self.shape[2]);
        match self.strides[2] {
            1 => row.copy_from_slice(&self.data[start..start + n]),
            -1 => {
                let backwards = &self.data[start + 1 - n..start + 1];
                row.iter_mut().zip(backwards.iter().rev()).for_each(|(to, from)| *to = *from);
            }
            _ => row.iter_mut().zip(self.row(a, b)).for_each(|(to, from)| *to = from),
        }
    }
}

impl Rows for Grid<'_, f32> {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn read(&self, a: usize, b: usize, row: &mut [f32]) {
        Grid::read(self, a, b, row);
    }

    fn reordered(&self, order: [usize; 3]) -> Self {
        Grid::reordered(self, order)
    }
}

/// Smallest and largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest, `+∞` while nothing has been seen.
    pub lo: f32,
    /// Largest, `-∞` while nothing has been seen.
    pub hi: f32,
}

impl Range {
    /// Of no values.
    pub const EMPTY: Range = Range { lo: f32::INFINITY, hi: f32::NEG_INFINITY };

    /// Takes values in; NaN is passed over.
    pub fn extend(&mut self, values: &[f32]) {
        let (mut lo, mut hi) = ([self.lo; 16], [self.hi; 16]);
        let (chunks, rest) = values.as_chunks::<16>();
        for chunk in chunks {
            for l in 0..16 {
                lo[l] = if chunk[l] < lo[l] { chunk[l] } else { lo[l] };
                hi[l] = if chunk[l] > hi[l] { chunk[l] } else { hi[l] };
            }
        }
        self.lo = lo.iter().chain(rest).fold(self.lo, |a, &b| a.min(b));
        self.hi = hi.iter().chain(rest).fold(self.hi, |a, &b| a.max(b));
    }

    /// The range of both.
    pub fn union(self, other: Range) -> Range {
        Range { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    /// Clips values to the range.
    pub fn clip(&self, values: &mut [f32]) {
        for v in values {
            *v = if *v < self.lo { self.lo } else { *v };
            *v = if *v > self.hi { self.hi } else { *v };
        }
    }
}
