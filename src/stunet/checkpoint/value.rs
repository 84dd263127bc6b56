//! What a pickle describes: objects in one arena, named by index, so that an object met twice is one object.
//!
//! A [`Value`] looks at one object. Nothing here recurses, so nesting costs no stack and a cycle does no harm.

use super::numpy::{Array, Dtype};
use super::tensor::{Storage, Tensor};

/// Index of an object in its [`Graph`].
pub(super) type Id = u32;

/// One object of a pickle.
#[derive(Clone, Debug)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, two's complement, little-endian.
    Long(Box<[u8]>),
    Float(f64),
    Str(Box<str>),
    Bytes(Box<[u8]>),
    /// Sets are lists too.
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// `dict` and `OrderedDict`, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    /// A name on the allow-list that has not been called.
    Global(super::globals::Global),
    Dtype(Dtype),
    Array(Box<Array>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    /// Something harmless that nobody needs, such as a device.
    Opaque(&'static str),
}

/// All objects of a pickle and which of them it describes.
#[derive(Debug)]
pub struct Graph {
    pub(super) objects: Vec<Object>,
    pub(super) root: Id,
}

impl Graph {
    /// The object that the pickle describes.
    pub fn root(&self) -> Value<'_> {
        Value { graph: self, id: self.root }
    }
}

/// A look at one object.
#[derive(Clone, Copy, Debug)]
pub struct Value<'g> {
    graph: &'g Graph,
    id: Id,
}

impl<'g> Value<'g> {
    fn object(self) -> &'g Object {
        &self.graph.objects[self.id as usize]
    }

    fn at(self, id: Id) -> Value<'g> {
        Value { graph: self.graph, id }
    }

    /// The value of a string key in a dict; the last one, as Python has it.
    pub fn get(self, key: &str) -> Option<Value<'g>> {
        self.find(|k| k.as_str() == Some(key))
    }

    /// The value of an integer key in a dict.
    pub fn get_int(self, key: i64) -> Option<Value<'g>> {
        self.find(|k| k.as_i64() == Some(key))
    }

    fn find(self, is_key: impl Fn(Value<'g>) -> bool) -> Option<Value<'g>> {
        match self.object() {
            Object::Dict(items) => items.iter().rev().find(|(k, _)| is_key(self.at(*k))).map(|(_, v)| self.at(*v)),
            _ => None,
        }
    }

    /// The items of a dict, in the order of insertion.
    pub fn items(self) -> Option<impl Iterator<Item = (Value<'g>, Value<'g>)>> {
        match self.object() {
            Object::Dict(items) => Some(items.iter().map(move |(k, v)| (self.at(*k), self.at(*v)))),
            _ => None,
        }
    }

    /// The elements of a list, tuple or set.
    pub fn elements(self) -> Option<impl ExactSizeIterator<Item = Value<'g>>> {
        match self.object() {
            Object::List(items) | Object::Tuple(items) => Some(items.iter().map(move |id| self.at(*id))),
            _ => None,
        }
    }

    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.object(), Object::None)
    }

    /// A string.
    pub fn as_str(self) -> Option<&'g str> {
        match self.object() {
            Object::Str(s) => Some(s),
            _ => None,
        }
    }

    /// A truth value; numpy's too.
    pub fn as_bool(self) -> Option<bool> {
        match self.object() {
            Object::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// An integer of at most 64 bits; numpy's too.
    pub fn as_i64(self) -> Option<i64> {
        match self.object() {
            Object::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// A number; integers are widened.
    pub fn as_f64(self) -> Option<f64> {
        match self.object() {
            Object::Float(f) => Some(*f),
            Object::Int(i) => Some(*i as f64),
            _ => None,
        }
    }

    /// The numbers of a list, a tuple or a one-dimensional numpy array.
    pub fn numbers(self) -> Option<Vec<f64>> {
        match self.object() {
            Object::Array(a) if a.shape.len() == 1 => Some(a.values.clone()),
            _ => self.elements()?.map(Value::as_f64).collect(),
        }
    }

    /// The rows of a list of lists or of a two-dimensional numpy array.
    pub fn rows(self) -> Option<Vec<Vec<f64>>> {
        match self.object() {
            Object::Array(a) if a.shape.len() == 2 && a.shape[1] > 0 => Some(a.values.chunks(a.shape[1]).map(<[f64]>::to_vec).collect()),
            _ => self.elements()?.map(Value::numbers).collect(),
        }
    }

    /// A tensor, its numbers still in the file.
    pub fn as_tensor(self) -> Option<&'g Tensor> {
        match self.object() {
            Object::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// The low 128 bits of an integer of any length up to 16 bytes.
    pub(super) fn as_i128(self) -> Option<i128> {
        match self.object() {
            Object::Int(i) => Some(*i as i128),
            Object::Long(bytes) if bytes.len() <= 16 => {
                let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
                let mut wide = [sign; 16];
                wide[..bytes.len()].copy_from_slice(bytes);
                Some(i128::from_le_bytes(wide))
            }
            _ => None,
        }
    }

    /// What kind of object it is, for messages.
    pub fn kind(self) -> &'static str {
        match self.object() {
            Object::None => "None",
            Object::Bool(_) => "a truth value",
            Object::Int(_) | Object::Long(_) => "an integer",
            Object::Float(_) => "a number",
            Object::Str(_) => "a string",
            Object::Bytes(_) => "bytes",
            Object::List(_) => "a list",
            Object::Tuple(_) => "a tuple",
            Object::Dict(_) => "a dict",
            Object::Global(_) => "a class",
            Object::Dtype(_) => "a dtype",
            Object::Array(_) => "an array",
            Object::Storage(_) => "a storage",
            Object::Tensor(_) => "a tensor",
            Object::Opaque(what) => what,
        }
    }
}
