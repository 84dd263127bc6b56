//! A pickle machine that can run nothing: it knows data and the allow-list of [`super::globals`], and has hard limits.
//!
//! Opcodes of protocols 0 to 5 (Python's `pickletools` documents them). Not known, and refused: instances of classes
//! (`INST`, `OBJ`, `NEWOBJ`, `NEWOBJ_EX`), the extension registry, text persistent ids and out-of-band buffers.

use super::error::{CheckpointError, malformed};
use super::globals::{self, Global};
use super::value::{Graph, Id, Object};
use std::borrow::Cow;
use std::collections::HashMap;

/// Largest pickle in bytes. The index of the largest official checkpoint has less than 1 MB.
pub(super) const MAX_PICKLE: usize = 64 << 20;
/// Most opcodes; bounds stack, memo and the elements of all containers.
const MAX_OPS: usize = 8_000_000;
/// Most objects.
const MAX_OBJECTS: usize = 2_000_000;
/// Deepest nesting of marks.
const MAX_MARKS: usize = 1_000;
/// Most arguments of a call.
const MAX_ARGS: usize = 16;
/// Most entries in the memo.
const MAX_MEMO: usize = 1_000_000;
/// Longest string or byte string.
const MAX_STRING: usize = 16 << 20;
/// Longest integer in bytes.
pub(super) const MAX_LONG: usize = 1_024;
/// Most bytes in all strings, byte strings and arrays together: a short pickle can ask for many copies of one string.
const MAX_DERIVED: usize = 256 << 20;

/// Reads one pickle from the beginning of `input`; returns it and its length. `persistent` says whether tensor storages
/// may be named, as they may inside `torch.save` files only.
pub(super) fn read(input: &[u8], persistent: bool) -> Result<(Graph, usize), CheckpointError> {
    let mut machine =
        Machine { input, at: 0, persistent, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), objects: Vec::new(), derived: 0 };
    for _ in 0..MAX_OPS {
        if let Some(root) = machine.step()? {
            return Ok((Graph { objects: machine.objects, root }, machine.at));
        }
    }
    Err(limit("operations", MAX_OPS))
}

fn limit(what: &str, most: usize) -> CheckpointError {
    CheckpointError::Limit(format!("the pickle has more than {most} {what}"))
}

/// The state of reading.
pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    persistent: bool,
    stack: Vec<Id>,
    /// Heights of the stack at open marks; nothing below the last one may be popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    objects: Vec<Object>,
    derived: usize,
}

impl<'a> Machine<'a> {
    /// One opcode. `Some` is the result of the pickle.
    fn step(&mut self) -> Result<Option<Id>, CheckpointError> {
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => {
                let version = self.byte()?;
                if version > 5 {
                    return Err(malformed(format!("pickle protocol {version} does not exist")));
                }
            }
            // FRAME: the length only helps buffering.
            0x95 => {
                let n = self.length(8)?;
                if n > self.input.len() - self.at {
                    return Err(truncated());
                }
            }
            b'(' => {
                if self.marks.len() == MAX_MARKS {
                    return Err(limit("nested marks", MAX_MARKS));
                }
                self.marks.push(self.stack.len());
            }
            // POP takes the mark itself when nothing stands on it.
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Object::None)?,
            0x88 => self.push(Object::Bool(true))?,
            0x89 => self.push(Object::Bool(false))?,
            b'I' | b'L' => self.text_integer()?,
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(n as i64))?;
            }
            b'K' => {
                let n = self.byte()?;
                self.push(Object::Int(n as i64))?;
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(n as i64))?;
            }
            0x8a => {
                let n = self.length(1)?;
                self.long(n)?;
            }
            0x8b => {
                let n = self.length(4)?;
                self.long(n)?;
            }
            b'F' => {
                let f = self.line()?.parse().map_err(|_| malformed("a number in the pickle is none"))?;
                self.push(Object::Float(f))?;
            }
            b'G' => {
                let f = f64::from_be_bytes(self.array()?);
                self.push(Object::Float(f))?;
            }
            b'S' => self.quoted_string()?,
            b'V' => self.escaped_unicode()?,
            b'T' => self.latin1(4)?,
            b'U' => self.latin1(1)?,
            b'X' => self.utf8(4)?,
            0x8c => self.utf8(1)?,
            0x8d => self.utf8(8)?,
            b'B' => self.binary(4)?,
            b'C' => self.binary(1)?,
            0x8e | 0x96 => self.binary(8)?,
            b']' | 0x8f => self.push(Object::List(Vec::new()))?,
            b')' => self.push(Object::Tuple(Vec::new()))?,
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Object::List(items))?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items))?;
            }
            count @ 0x85..=0x87 => {
                let n = (count - 0x84) as usize;
                let items = self.pop_many(n)?;
                self.push(Object::Tuple(items))?;
            }
            b'd' => {
                let items = pairs(&self.pop_mark()?)?;
                self.push(Object::Dict(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            // APPENDS and, for sets, ADDITEMS.
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let items = pairs(&self.pop_many(2)?)?;
                self.extend_dict(items)?;
            }
            b'u' => {
                let items = pairs(&self.pop_mark()?)?;
                self.extend_dict(items)?;
            }
            b'g' => {
                let key = self.text_key()?;
                self.recall(key)?;
            }
            b'h' => {
                let key = self.byte()? as u32;
                self.recall(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            b'p' => {
                let key = self.text_key()?;
                self.remember(key)?;
            }
            b'q' => {
                let key = self.byte()? as u32;
                self.remember(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => {
                let key = self.memo.len() as u32;
                self.remember(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Global(Global::find(module, name)?))?;
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let (Object::Str(module), Object::Str(name)) = (self.object(names[0]), self.object(names[1])) else {
                    return Err(malformed("a name in the pickle is not a string"));
                };
                let global = Global::find(module, name)?;
                self.push(Object::Global(global))?;
            }
            b'R' => {
                let call = self.pop_many(2)?;
                let Object::Global(global) = *self.object(call[0]) else { return Err(malformed("something is called that can not be")) };
                let Object::Tuple(args) = self.object(call[1]) else { return Err(malformed("a call without a tuple of arguments")) };
                if args.len() > MAX_ARGS {
                    return Err(limit("arguments in a call", MAX_ARGS));
                }
                let args = args.clone();
                let object = global.call(self, &args)?;
                self.push(object)?;
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                globals::build(self, target, state)?;
            }
            b'Q' if self.persistent => {
                let id = self.pop()?;
                let storage = globals::storage(self, id)?;
                self.push(storage)?;
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Global::find(module, name)?;
                return Err(instances());
            }
            b'o' | 0x81 | 0x92 => return Err(instances()),
            other => return Err(malformed(format!("the pickle has the unknown opcode 0x{other:02x} at byte {}", self.at - 1))),
        }
        Ok(None)
    }

    // ---- the input

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], CheckpointError> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.input.len()).ok_or_else(truncated)?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, CheckpointError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        self.take(N)?.first_chunk().copied().ok_or_else(truncated)
    }

    /// An unsigned little-endian length of 1, 4 or 8 bytes.
    fn length(&mut self, width: usize) -> Result<usize, CheckpointError> {
        let n = self.take(width)?.iter().rev().fold(0u64, |n, &b| n << 8 | b as u64);
        usize::try_from(n).map_err(|_| malformed("a length in the pickle is absurd"))
    }

    /// A line of text without its end.
    pub fn line(&mut self) -> Result<&'a str, CheckpointError> {
        let rest = &self.input[self.at..];
        let n = rest.iter().take(MAX_STRING).position(|&b| b == b'\n').ok_or_else(truncated)?;
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| malformed("a line of the pickle is not UTF-8"))
    }

    fn text_key(&mut self) -> Result<u32, CheckpointError> {
        self.line()?.parse().map_err(|_| malformed("a memo key is not a number"))
    }

    /// Bytes with their length before them, and their share of the budget.
    pub fn sized(&mut self, width: usize) -> Result<&'a [u8], CheckpointError> {
        let n = self.length(width)?;
        if n > MAX_STRING {
            return Err(CheckpointError::Limit(format!("a string in the pickle has {n} bytes; {MAX_STRING} are allowed")));
        }
        let bytes = self.take(n)?;
        self.charge(n)?;
        Ok(bytes)
    }

    // ---- stack, memo, objects

    pub fn push(&mut self, object: Object) -> Result<(), CheckpointError> {
        if self.objects.len() == MAX_OBJECTS {
            return Err(limit("objects", MAX_OBJECTS));
        }
        self.stack.push(self.objects.len() as Id);
        self.objects.push(object);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, CheckpointError> {
        if self.stack.len() <= self.floor() {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn top(&self) -> Result<Id, CheckpointError> {
        if self.stack.len() <= self.floor() {
            return Err(underflow());
        }
        self.stack.last().copied().ok_or_else(underflow)
    }

    /// The last `n`, in the order they were pushed.
    fn pop_many(&mut self, n: usize) -> Result<Vec<Id>, CheckpointError> {
        match self.stack.len().checked_sub(n) {
            Some(at) if at >= self.floor() => Ok(self.stack.split_off(at)),
            _ => Err(underflow()),
        }
    }

    /// Everything above the last mark, which is taken too.
    fn pop_mark(&mut self) -> Result<Vec<Id>, CheckpointError> {
        let at = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(at))
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), CheckpointError> {
        let target = self.top()?;
        match &mut self.objects[target as usize] {
            Object::List(list) => list.extend(items),
            _ => return Err(malformed("something is appended to what is no list")),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: Vec<(Id, Id)>) -> Result<(), CheckpointError> {
        let target = self.top()?;
        match &mut self.objects[target as usize] {
            Object::Dict(dict) => dict.extend(items),
            _ => return Err(malformed("an item is set in what is no dict")),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), CheckpointError> {
        let top = self.top()?;
        if self.memo.len() == MAX_MEMO {
            return Err(limit("memo entries", MAX_MEMO));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), CheckpointError> {
        let id = *self.memo.get(&key).ok_or_else(|| malformed(format!("memo entry {key} is used before it is set")))?;
        self.stack.push(id);
        Ok(())
    }

    // ---- for the allow-list

    pub fn object(&self, id: Id) -> &Object {
        &self.objects[id as usize]
    }

    pub fn replace(&mut self, id: Id, object: Object) {
        self.objects[id as usize] = object;
    }

    /// The elements of a list or tuple.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.object(id) {
            Object::List(items) | Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// A length, offset or stride: not negative, below 2^48.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.object(id) {
            Object::Int(n) => usize::try_from(*n).ok().filter(|&n| n < 1 << 48),
            _ => None,
        }
    }

    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let ids = self.sequence(id)?;
        if ids.len() > 64 {
            return None;
        }
        ids.iter().map(|id| self.size(*id)).collect()
    }

    /// Bytes, or a Latin-1 string as bytes.
    pub fn bytes(&mut self, id: Id) -> Result<Vec<u8>, CheckpointError> {
        let bytes: Option<Cow<'_, [u8]>> = match self.object(id) {
            Object::Bytes(b) => Some(Cow::Borrowed(b)),
            Object::Str(s) => s.chars().map(|c| u8::try_from(c as u32).ok()).collect::<Option<Vec<u8>>>().map(Cow::Owned),
            _ => None,
        };
        let bytes = bytes.ok_or_else(|| malformed("bytes are expected where the pickle has something else"))?.into_owned();
        self.charge(bytes.len())?;
        Ok(bytes)
    }

    /// Counts bytes that the pickle makes us keep.
    pub fn charge(&mut self, bytes: usize) -> Result<(), CheckpointError> {
        self.derived = self.derived.saturating_add(bytes);
        if self.derived > MAX_DERIVED { Err(limit("bytes of content", MAX_DERIVED)) } else { Ok(()) }
    }
}

fn truncated() -> CheckpointError {
    CheckpointError::Truncated("the pickle ends in the middle".into())
}

fn underflow() -> CheckpointError {
    malformed("the pickle takes more from its stack than it put there")
}

fn instances() -> CheckpointError {
    CheckpointError::Forbidden("an instance of a class".into())
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, CheckpointError> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|[k, v]| (*k, *v)).collect()),
        _ => Err(malformed("a dict has a key without a value")),
    }
}
