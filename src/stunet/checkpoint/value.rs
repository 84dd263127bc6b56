//! What a pickle describes: objects in one arena, named by index, so that an object met twice is one object.
//!
//! A [`Value`] looks at one object. Nothing here recurses, so nesting costs no stack and a cycle does no harm.

use super::numpy::{Array, Dtype};
use super::tensor::{Storage, Tensor};
use serde_json::Value as Json;

/// A text of this many bytes counts as one more node when objects become JSON.
const BYTES_A_NODE: usize = 32;

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
        match self.object() {
            Object::Dict(items) => items.iter().rev().find(|(k, _)| self.at(*k).as_str() == Some(key)).map(|(_, v)| self.at(*v)),
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

    /// The object as JSON: dict keys as text (tuples as `1,2`), arrays as nested lists, numbers that JSON lacks as null,
    /// what has no JSON form as its kind. Shared objects are copied, so `nodes` bounds the size of the result; `None`
    /// beyond it, and beyond 64 levels.
    pub fn to_json(self, nodes: usize) -> Option<Json> {
        self.json(&mut { nodes }, 64)
    }

    fn json(self, nodes: &mut usize, depth: usize) -> Option<Json> {
        *nodes = nodes.checked_sub(1)?;
        let depth = depth.checked_sub(1)?;
        Some(match self.object() {
            Object::None => Json::Null,
            Object::Bool(b) => Json::from(*b),
            Object::Int(i) => Json::from(*i),
            Object::Float(f) => Json::from(*f),
            Object::Str(s) => {
                *nodes = nodes.checked_sub(s.len() / BYTES_A_NODE)?;
                Json::from(&**s)
            }
            Object::List(items) | Object::Tuple(items) => items.iter().map(|id| self.at(*id).json(nodes, depth)).collect::<Option<_>>()?,
            Object::Dict(items) => {
                let pairs = items.iter().map(|(k, v)| {
                    let key = self.at(*k).key_text();
                    *nodes = nodes.checked_sub(key.len() / BYTES_A_NODE)?;
                    Some((key, self.at(*v).json(nodes, depth)?))
                });
                Json::Object(pairs.collect::<Option<_>>()?)
            }
            Object::Array(a) => {
                *nodes = nodes.checked_sub(a.values.len())?;
                nested(&a.shape, &a.values)
            }
            _ => Json::from(self.kind()),
        })
    }

    fn key_text(self) -> String {
        match self.object() {
            Object::Str(s) => s.to_string(),
            Object::Int(i) => i.to_string(),
            Object::Tuple(items) if items.len() <= 1_000 && items.iter().all(|id| self.at(*id).as_i64().is_some()) => {
                items.iter().map(|id| self.at(*id).key_text()).collect::<Vec<_>>().join(",")
            }
            _ => self.kind().to_string(),
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

/// Row-major values as nested lists; a count of 0 anywhere gives an empty list.
fn nested(shape: &[usize], values: &[f64]) -> Json {
    match shape {
        [] => values.first().map_or(Json::Null, |v| Json::from(*v)),
        [_] => values.iter().map(|v| Json::from(*v)).collect(),
        [n, rest @ ..] => match values.len().checked_div(*n).filter(|&row| row > 0) {
            Some(row) => values.chunks(row).map(|r| nested(rest, r)).collect(),
            None => Json::Array(Vec::new()),
        },
    }
}
