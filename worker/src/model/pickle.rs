//! The state dict inside a `.pth` of torch.save: a zip of `*/data.pkl` and `*/data/<key>`.
//! Only what such files hold is understood, and nothing is ever executed.
//! Opcodes: CPython's `Lib/pickletools.py`; storages: `torch/serialization.py`.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use tch::{Kind, Tensor};

const MAX_STACK: usize = 1 << 16;

#[derive(Debug, Clone)]
enum Value {
    None,
    Bool,
    Int(i64),
    Text(String),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(String),
    Storage {
        kind: Kind,
        key: String,
    },
    Tensor {
        kind: Kind,
        key: String,
        offset: i64,
        size: Vec<i64>,
        stride: Vec<i64>,
    },
    Mark,
}

/// The named tensors of an archive.
pub(super) fn read_archive(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
    let pickle = archive
        .file_names()
        .find(|name| name.ends_with("/data.pkl"))
        .map(str::to_owned)
        .ok_or("a zip without data.pkl, so not made by torch.save")?;
    let prefix = pickle.trim_end_matches("data.pkl").to_owned();
    let program = member(&mut archive, &pickle, bytes.len())?;
    let root = Machine::run(&program)?;
    let mut storages: HashMap<String, Tensor> = HashMap::new();
    let mut tensors = Vec::new();
    for (name, value) in state_dict(root)? {
        let (
            Value::Text(name),
            Value::Tensor {
                kind,
                key,
                offset,
                size,
                stride,
            },
        ) = (name, value)
        else {
            continue;
        };
        if !storages.contains_key(&key) {
            let data = member(&mut archive, &format!("{prefix}data/{key}"), bytes.len())?;
            let count = data.len() / kind.elt_size_in_bytes();
            let storage = Tensor::f_from_data_size(&data, &[count as i64], kind)
                .map_err(|error| error.to_string())?;
            storages.insert(key.clone(), storage);
        }
        let storage = &storages[&key];
        let last: Option<i64> = size.iter().zip(&stride).try_fold(offset, |at, (n, step)| {
            at.checked_add((n - 1).max(0).checked_mul(*step)?)
        });
        let inside = offset >= 0
            && size.len() == stride.len()
            && size.iter().chain(&stride).all(|&n| n >= 0)
            && last.is_some_and(|last| last < storage.numel() as i64);
        if !inside {
            return Err(format!("{name} reaches outside its storage"));
        }
        let view = storage
            .f_as_strided(&size, &stride, offset)
            .and_then(|view| view.f_contiguous())
            .map_err(|error| error.to_string())?;
        tensors.push((name, view));
    }
    if tensors.is_empty() {
        return Err("no named tensors inside".to_owned());
    }
    Ok(tensors)
}

fn member(
    archive: &mut zip::ZipArchive<Cursor<&[u8]>>,
    name: &str,
    limit: usize,
) -> Result<Vec<u8>, String> {
    let file = archive
        .by_name(name)
        .map_err(|error| format!("{name}: {error}"))?;
    // torch.save does not compress, so no member is larger than the file.
    let mut bytes = Vec::new();
    file.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{name}: {e}"))?;
    Ok(bytes)
}

/// The dict itself, or the one under the usual names of training checkpoints.
fn state_dict(root: Value) -> Result<Vec<(Value, Value)>, String> {
    let Value::Dict(items) = root else {
        return Err("its content is no dict".to_owned());
    };
    let inner = items.iter().find_map(|(key, value)| match (key, value) {
        (Value::Text(key), Value::Dict(inner)) if key == "state_dict" || key == "model" => {
            Some(inner.clone())
        }
        _ => None,
    });
    Ok(inner.unwrap_or(items))
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a> {
    fn run(program: &'a [u8]) -> Result<Value, String> {
        let mut machine = Self {
            program,
            at: 0,
            stack: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            let opcode = machine.take(1)?[0];
            if opcode == b'.' {
                return machine.pop();
            }
            machine.step(opcode)?;
            if machine.stack.len() > MAX_STACK {
                return Err("the pickle is too deep".to_owned());
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool),
            0x89 => self.stack.push(Value::Bool),
            b'}' => self.stack.push(Value::Dict(Vec::new())),
            b')' => self.stack.push(Value::Tuple(Vec::new())),
            b'(' => self.stack.push(Value::Mark),
            b'K' => {
                let value = self.take(1)?[0];
                self.stack.push(Value::Int(value.into()));
            }
            b'M' => {
                let b = self.take(2)?;
                self.stack
                    .push(Value::Int(u16::from_le_bytes([b[0], b[1]]).into()));
            }
            b'J' => {
                let value = self.u32()? as i32;
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => self.long()?,
            b'X' => {
                let length = self.u32()? as usize;
                self.text(length)?;
            }
            0x8c => {
                let length = self.take(1)?[0].into();
                self.text(length)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.stack.push(Value::Global(format!("{module} {name}")));
            }
            b'q' => {
                let slot = self.take(1)?[0].into();
                self.memoise(slot)?;
            }
            b'r' => {
                let slot = self.u32()?;
                self.memoise(slot)?;
            }
            b'h' => {
                let slot = self.take(1)?[0].into();
                self.recall(slot)?;
            }
            b'j' => {
                let slot = self.u32()?;
                self.recall(slot)?;
            }
            b't' => {
                let items = self.drain_to_mark()?;
                self.stack.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or_else(underflow)?;
                let items = self.stack.split_off(from);
                self.stack.push(Value::Tuple(items));
            }
            b'Q' => {
                let value = persistent(self.pop()?)?;
                self.stack.push(value);
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.stack.push(call(function, arguments)?);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(vec![key, value])?;
            }
            b'u' => {
                let items = self.drain_to_mark()?;
                self.extend(items)?;
            }
            // Attributes of an OrderedDict, such as `_metadata`: not needed.
            b'b' => drop(self.pop()?),
            other => {
                return Err(format!(
                    "the pickle uses opcode 0x{other:02x}, which weights do not need"
                ));
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).ok_or_else(underflow)?;
        let bytes = self
            .program
            .get(self.at..end)
            .ok_or("the pickle is cut off")?;
        self.at = end;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn long(&mut self) -> Result<(), String> {
        let count = usize::from(self.take(1)?[0]);
        let bytes = self.take(count)?;
        if count > 8 {
            return Err("an integer of the pickle is too long".to_owned());
        }
        let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let mut value = [fill; 8];
        value[..count].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(value)));
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?.to_vec();
        let text = String::from_utf8(bytes).map_err(|_| "a name is not UTF-8".to_owned())?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = self.program.get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or("the pickle is cut off")?;
        self.at += length + 1;
        Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(underflow)
    }

    fn drain_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self
            .stack
            .iter()
            .rposition(|value| matches!(value, Value::Mark));
        let items = self.stack.split_off(mark.ok_or_else(underflow)? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn extend(&mut self, items: Vec<Value>) -> Result<(), String> {
        let Some(Value::Dict(dict)) = self.stack.last_mut() else {
            return Err("the pickle fills something that is no dict".to_owned());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    /// Only small values come back from the memo in such files; dicts would be copied.
    fn memoise(&mut self, slot: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or_else(underflow)?;
        if !matches!(value, Value::Dict(_)) {
            self.memo.insert(slot, value.clone());
        }
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), String> {
        let value = self
            .memo
            .get(&slot)
            .ok_or("the pickle recalls what it never kept")?;
        self.stack.push(value.clone());
        Ok(())
    }
}

fn underflow() -> String {
    "the pickle is malformed".to_owned()
}

/// `('storage', <type>, key, location, elements)`.
fn persistent(id: Value) -> Result<Value, String> {
    let Value::Tuple(parts) = id else {
        return Err(underflow());
    };
    match parts.as_slice() {
        [Value::Text(tag), Value::Global(kind), Value::Text(key), ..] if tag == "storage" => {
            let kind = match kind.as_str() {
                "torch FloatStorage" => Kind::Float,
                "torch DoubleStorage" => Kind::Double,
                "torch HalfStorage" => Kind::Half,
                "torch BFloat16Storage" => Kind::BFloat16,
                "torch LongStorage" => Kind::Int64,
                other => return Err(format!("a storage of type `{other}`")),
            };
            Ok(Value::Storage {
                kind,
                key: key.clone(),
            })
        }
        _ => Err(underflow()),
    }
}

/// The allow-list of what a state dict is made of.
fn call(function: Value, arguments: Value) -> Result<Value, String> {
    let (Value::Global(function), Value::Tuple(arguments)) = (function, arguments) else {
        return Err(underflow());
    };
    match (function.as_str(), arguments.as_slice()) {
        ("collections OrderedDict", _) => Ok(Value::Dict(Vec::new())),
        ("torch._utils _rebuild_parameter", [tensor @ Value::Tensor { .. }, ..]) => {
            Ok(tensor.clone())
        }
        (
            "torch._utils _rebuild_tensor_v2",
            [
                Value::Storage { kind, key },
                Value::Int(offset),
                Value::Tuple(size),
                Value::Tuple(stride),
                ..,
            ],
        ) => Ok(Value::Tensor {
            kind: *kind,
            key: key.clone(),
            offset: *offset,
            size: integers(size)?,
            stride: integers(stride)?,
        }),
        _ => Err(format!(
            "the pickle calls `{function}`, which is not allowed"
        )),
    }
}

fn integers(values: &[Value]) -> Result<Vec<i64>, String> {
    values
        .iter()
        .map(|value| {
            if let Value::Int(value) = value {
                Ok(*value)
            } else {
                Err(underflow())
            }
        })
        .collect()
}
