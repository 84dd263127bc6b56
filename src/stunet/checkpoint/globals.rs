//! The allow-list: every name that a checkpoint may mention and what calling it makes. Nothing is ever imported or run;
//! a name that is not in the table ends the reading.

use super::error::{CheckpointError, malformed, shown};
use super::numpy::{Array, Dtype};
use super::pickle::Machine;
use super::tensor::{ElementType, Storage, Tensor};
use super::value::{Id, Object};

/// A name on the allow-list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and its siblings
    StorageType(ElementType),
    /// `torch.device`
    Device,
    /// `numpy.core.multiarray.scalar`
    NumpyScalar,
    /// `numpy.core.multiarray._reconstruct`
    NumpyReconstruct,
    /// `numpy.core.numeric._frombuffer`
    NumpyFromBuffer,
    /// `numpy.ndarray`
    NumpyArray,
    /// `numpy.dtype`
    NumpyDtype,
    /// `_codecs.encode`
    Encode,
}

impl Global {
    /// The entry of the allow-list, or the refusal.
    pub fn find(module: &str, name: &str) -> Result<Global, CheckpointError> {
        use ElementType as E;
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "FloatStorage") => Global::StorageType(E::F32),
            ("torch", "DoubleStorage") => Global::StorageType(E::F64),
            ("torch", "HalfStorage") => Global::StorageType(E::F16),
            ("torch", "BFloat16Storage") => Global::StorageType(E::BF16),
            ("torch", "LongStorage") => Global::StorageType(E::Integer(8)),
            ("torch", "IntStorage") => Global::StorageType(E::Integer(4)),
            ("torch", "ShortStorage") => Global::StorageType(E::Integer(2)),
            ("torch", "CharStorage" | "ByteStorage" | "BoolStorage") => Global::StorageType(E::Integer(1)),
            ("torch", "device") => Global::Device,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::NumpyReconstruct,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::NumpyFromBuffer,
            ("numpy", "ndarray") => Global::NumpyArray,
            ("numpy", "dtype") => Global::NumpyDtype,
            ("_codecs", "encode") => Global::Encode,
            _ => return Err(CheckpointError::Forbidden(shown(&format!("{module}.{name}")))),
        })
    }

    /// What a call with these arguments makes (`REDUCE`).
    pub fn call(self, machine: &mut Machine, args: &[Id]) -> Result<Object, CheckpointError> {
        let wrong = || malformed(format!("{self:?} is called with {} arguments that do not fit", args.len()));
        match (self, args) {
            (Global::OrderedDict, []) => Ok(Object::Dict(Vec::new())),
            (Global::OrderedDict, [pairs]) => ordered_dict(machine, *pairs).ok_or_else(wrong)?,
            (Global::RebuildTensor, [storage, offset, shape, strides, _, _] | [storage, offset, shape, strides, _, _, _]) => {
                let Object::Storage(storage) = machine.object(*storage) else { return Err(wrong()) };
                let storage = Storage::clone(storage);
                let offset = machine.size(*offset).ok_or_else(wrong)?;
                let shape = machine.sizes(*shape).ok_or_else(wrong)?;
                let strides = machine.sizes(*strides).ok_or_else(wrong)?;
                Ok(Object::Tensor(Box::new(Tensor::new(storage, offset, shape, strides)?)))
            }
            (Global::RebuildParameter, [data, _, _]) => match machine.object(*data) {
                Object::Tensor(t) => Ok(Object::Tensor(t.clone())),
                _ => Err(wrong()),
            },
            (Global::Device, _) => Ok(Object::Opaque("a device")),
            (Global::NumpyScalar, [dtype, bytes]) => {
                let Object::Dtype(dtype) = *machine.object(*dtype) else { return Err(wrong()) };
                dtype.scalar(&machine.bytes(*bytes)?)
            }
            (Global::NumpyReconstruct, [class, _, _]) => match machine.object(*class) {
                Object::Global(Global::NumpyArray) => Ok(Object::Array(Box::new(Array { shape: vec![0], values: Vec::new() }))),
                _ => Err(wrong()),
            },
            (Global::NumpyFromBuffer, [buffer, dtype, shape, order]) => {
                let Object::Dtype(dtype) = *machine.object(*dtype) else { return Err(wrong()) };
                let shape = machine.sizes(*shape).ok_or_else(wrong)?;
                let fortran = match machine.object(*order) {
                    Object::Str(s) => &**s == "F",
                    _ => return Err(wrong()),
                };
                let bytes = machine.bytes(*buffer)?;
                machine.charge(bytes.len().saturating_mul(8))?;
                dtype.array(shape, &bytes, fortran)
            }
            (Global::NumpyDtype, [code, ..]) => match machine.object(*code) {
                Object::Str(s) => Ok(Object::Dtype(Dtype::parse(s)?)),
                _ => Err(wrong()),
            },
            (Global::Encode, [text, encoding]) => match machine.object(*encoding) {
                Object::Str(s) if matches!(&**s, "latin1" | "latin-1") => Ok(Object::Bytes(machine.bytes(*text)?.into())),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

fn ordered_dict(machine: &mut Machine, pairs: Id) -> Option<Result<Object, CheckpointError>> {
    let rows = machine.sequence(pairs)?.to_vec();
    let items: Option<Vec<(Id, Id)>> = rows
        .iter()
        .map(|row| match machine.sequence(*row)? {
            [k, v] => Some((*k, *v)),
            _ => None,
        })
        .collect();
    let items = items?;
    Some(machine.charge(items.len() * 8).map(|()| Object::Dict(items)))
}

/// Gives an object its state (`BUILD`): byte order of a dtype, content of an array; attributes of a dict are left out.
pub(super) fn build(machine: &mut Machine, target: Id, state: Id) -> Result<(), CheckpointError> {
    let object = match machine.object(target) {
        // `state_dict()` hangs its `_metadata` on the OrderedDict.
        Object::Dict(_) | Object::Opaque(_) => return Ok(()),
        Object::Dtype(dtype) => {
            let dtype = *dtype;
            match machine.sequence(state).and_then(|s| s.get(1)).map(|id| machine.object(*id)) {
                Some(Object::Str(order)) => Object::Dtype(Dtype { big_endian: &**order == ">", ..dtype }),
                _ => return Err(malformed("a numpy dtype has a state that is not understood")),
            }
        }
        Object::Array(_) => array_state(machine, state)?,
        _ => return Err(malformed("a state is given to an object that has none")),
    };
    machine.replace(target, object);
    Ok(())
}

/// `(version, shape, dtype, is_fortran, data)`.
fn array_state(machine: &mut Machine, state: Id) -> Result<Object, CheckpointError> {
    let wrong = || malformed("a numpy array has a state that is not understood");
    let &[_, shape, dtype, fortran, data] = machine.sequence(state).ok_or_else(wrong)? else { return Err(wrong()) };
    let shape = machine.sizes(shape).ok_or_else(wrong)?;
    let Object::Dtype(dtype) = *machine.object(dtype) else { return Err(wrong()) };
    let fortran = matches!(machine.object(fortran), Object::Bool(true) | Object::Int(1));
    if let Some(objects) = machine.sequence(data) {
        let objects = objects.to_vec();
        machine.charge(objects.len() * 4)?;
        return Ok(Object::List(objects));
    }
    let bytes = machine.bytes(data)?;
    machine.charge(bytes.len().saturating_mul(8))?;
    dtype.array(shape, &bytes, fortran)
}

/// The persistent id of a tensor's storage: `('storage', type, key, location, numel[, view])`.
pub(super) fn storage(machine: &Machine, id: Id) -> Result<Object, CheckpointError> {
    let wrong = || malformed("a persistent id is not that of a tensor storage");
    let (tag, class, key, numel) = match machine.sequence(id).ok_or_else(wrong)? {
        [tag, class, key, _, numel] => (tag, class, key, numel),
        [tag, class, key, _, numel, view] if matches!(machine.object(*view), Object::None) => (tag, class, key, numel),
        _ => return Err(wrong()),
    };
    let (Object::Str(tag), Object::Global(Global::StorageType(element)), Object::Str(key)) =
        (machine.object(*tag), machine.object(*class), machine.object(*key))
    else {
        return Err(wrong());
    };
    if &**tag != "storage" || key.len() > 64 {
        return Err(wrong());
    }
    let numel = machine.size(*numel).ok_or_else(wrong)?;
    Ok(Object::Storage(Box::new(Storage { key: key.clone(), element: *element, numel })))
}
