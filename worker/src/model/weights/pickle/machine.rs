//! The stack machine that a pickle programs.
//!
//! Containers live in a heap and values refer to them by index, so copying a value is cheap,
//! cycles are harmless and nothing recurses, however deeply a file nests. Each opcode makes one
//! object at most and moves what it puts inside: memory stays proportional to the file.

use std::collections::HashMap;

use super::error::{PickleError, Problem};
use super::torch::{Global, StorageRef, TensorRef, persistent, reduce};

/// Text borrows from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// None, numbers with a fraction, bytes: nothing that tensors are made of.
    Other,
    Bool,
    Int(i64),
    Text(&'a str),
    Global(Global),
    Object(usize),
    Mark,
}

#[derive(Debug)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(StorageRef<'a>),
    Tensor(TensorRef<'a>),
}

#[derive(Debug, Default)]
pub(super) struct Heap<'a>(Vec<Object<'a>>);

impl<'a> Heap<'a> {
    pub(super) fn get(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(index) => self.0.get(index),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.get(value) {
            Some(Object::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    /// A dict's items; an empty dict stays in their place.
    pub(super) fn take_dict(&mut self, value: Value<'a>) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match value {
            Value::Object(index) => match self.0.get_mut(index) {
                Some(Object::Dict(items)) => Some(std::mem::take(items)),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn add(&mut self, object: Object<'a>) -> Value<'a> {
        self.0.push(object);
        Value::Object(self.0.len() - 1)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

pub(super) struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    memo: HashMap<u32, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    /// Runs until STOP and returns what is then on top.
    pub(super) fn run(program: &'a [u8]) -> Result<(Heap<'a>, Value<'a>), PickleError> {
        let mut machine = Self {
            program,
            at: 0,
            stack: Vec::new(),
            memo: HashMap::new(),
            heap: Heap::default(),
        };
        loop {
            let offset = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(result)) => return Ok((machine.heap, result)),
                Err(problem) => return Err(PickleError { offset, problem }),
            }
        }
    }

    /// One opcode; a value once that was STOP.
    fn step(&mut self) -> Result<Option<Value<'a>>, Problem> {
        let [opcode] = self.array()?;
        let pushed = match opcode {
            b'.' => return self.pop().map(Some),
            // PROTO and FRAME only announce.
            0x80 => return self.array::<1>().map(|_| None),
            0x95 => return self.array::<8>().map(|_| None),
            // BINPUT, LONG_BINPUT, MEMOIZE.
            b'q' => return self.byte().and_then(|slot| self.memoise(slot.into())),
            b'r' => return self.long().and_then(|slot| self.memoise(slot)),
            0x94 => return self.memoise(self.memo.len() as u32),
            // APPEND, APPENDS, SETITEM, SETITEMS, BUILD.
            b'a' => return self.pop().and_then(|item| self.append(vec![item])),
            b'e' => return self.split_at_mark().and_then(|items| self.append(items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set(vec![key, value]);
            }
            b'u' => return self.split_at_mark().and_then(|items| self.set(items)),
            b'b' => return self.build(),
            // NONE, NEWTRUE, NEWFALSE, BINFLOAT.
            b'N' => Value::Other,
            0x88 | 0x89 => Value::Bool,
            b'G' => self.array::<8>().map(|_| Value::Other)?,
            // BININT1, BININT2, BININT, LONG1.
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => self.long_integer()?,
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; SHORT_BINBYTES, BINBYTES.
            0x8c => self.byte().and_then(|length| self.text(length.into()))?,
            b'X' => self.long().and_then(|length| self.text(length.into()))?,
            0x8d => self
                .array()
                .and_then(|length| self.text(u64::from_le_bytes(length)))?,
            b'C' => self
                .byte()
                .and_then(|length| self.take(length.into()))
                .map(|_| Value::Other)?,
            b'B' => self
                .long()
                .and_then(|length| self.take(length.into()))
                .map(|_| Value::Other)?,
            // BINGET, LONG_BINGET.
            b'h' => self.byte().and_then(|slot| self.recall(slot.into()))?,
            b'j' => self.long().and_then(|slot| self.recall(slot))?,
            // MARK, EMPTY_TUPLE, TUPLE1 to TUPLE3, TUPLE, EMPTY_LIST, EMPTY_DICT.
            b'(' => Value::Mark,
            b')' => self.heap.add(Object::Tuple(Vec::new())),
            0x85..=0x87 => self.last(usize::from(opcode - 0x84))?,
            b't' => {
                let items = self.split_at_mark()?;
                self.heap.add(Object::Tuple(items))
            }
            b']' => self.heap.add(Object::List(Vec::new())),
            b'}' => self.heap.add(Object::Dict(Vec::new())),
            // GLOBAL, STACK_GLOBAL, BINPERSID, REDUCE.
            b'c' => Value::Global(Global::named(self.line()?, self.line()?)?),
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    Value::Global(Global::named(module, name)?)
                }
                _ => return Err(Problem::Malformed("a global without a name")),
            },
            b'Q' => {
                let id = self.pop()?;
                persistent(&mut self.heap, id)?
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                reduce(&mut self.heap, function, arguments)?
            }
            other => return Err(Problem::Opcode(other)),
        };
        self.stack.push(pushed);
        Ok(None)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Problem> {
        let rest = self.program.get(self.at..).unwrap_or_default();
        let length = usize::try_from(length).map_err(|_| Problem::CutOff)?;
        let bytes = rest.get(..length).ok_or(Problem::CutOff)?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| Problem::CutOff)
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        self.array().map(|[byte]| byte)
    }

    fn long(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    /// Two's complement of up to eight bytes, the shortest that holds the number.
    fn long_integer(&mut self) -> Result<Value<'a>, Problem> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > 8 {
            return Err(Problem::Malformed("an integer of more than 64 bits"));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut number = if negative { [0xff; 8] } else { [0; 8] };
        number[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(number)))
    }

    fn text(&mut self, length: u64) -> Result<Value<'a>, Problem> {
        utf8(self.take(length)?).map(Value::Text)
    }

    fn line(&mut self) -> Result<&'a str, Problem> {
        let rest = self.program.get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or(Problem::CutOff)?;
        self.at += length + 1;
        utf8(&rest[..length])
    }

    fn pop(&mut self) -> Result<Value<'a>, Problem> {
        self.stack.pop().ok_or(Problem::Malformed("an empty stack"))
    }

    fn last(&mut self, count: usize) -> Result<Value<'a>, Problem> {
        let from = self.stack.len().checked_sub(count);
        let items = self
            .stack
            .split_off(from.ok_or(Problem::Malformed("an empty stack"))?);
        Ok(self.heap.add(Object::Tuple(items)))
    }

    fn split_at_mark(&mut self) -> Result<Vec<Value<'a>>, Problem> {
        let mark = self.stack.iter().rposition(|value| *value == Value::Mark);
        let mark = mark.ok_or(Problem::Malformed("no mark on the stack"))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn top(&mut self) -> Option<&mut Object<'a>> {
        match self.stack.last() {
            Some(Value::Object(index)) => self.heap.0.get_mut(*index),
            _ => None,
        }
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<Option<Value<'a>>, Problem> {
        let Some(Object::List(list)) = self.top() else {
            return Err(Problem::Malformed("items for something that is no list"));
        };
        list.extend(items);
        Ok(None)
    }

    fn set(&mut self, items: Vec<Value<'a>>) -> Result<Option<Value<'a>>, Problem> {
        let Some(Object::Dict(dict)) = self.top() else {
            return Err(Problem::Malformed("items for something that is no dict"));
        };
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(Problem::Malformed("a key without a value"));
        };
        dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(None)
    }

    /// Attributes of a dict, such as a state dict's `_metadata`, are not needed.
    fn build(&mut self) -> Result<Option<Value<'a>>, Problem> {
        self.pop()?;
        match self.top() {
            Some(Object::Dict(_)) => Ok(None),
            _ => Err(Problem::Malformed(
                "attributes for something that is no dict",
            )),
        }
    }

    fn memoise(&mut self, slot: u32) -> Result<Option<Value<'a>>, Problem> {
        let value = self
            .stack
            .last()
            .ok_or(Problem::Malformed("an empty stack"))?;
        self.memo.insert(slot, *value);
        Ok(None)
    }

    fn recall(&self, slot: u32) -> Result<Value<'a>, Problem> {
        self.memo
            .get(&slot)
            .copied()
            .ok_or(Problem::Malformed("nothing kept under that number"))
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|_| Problem::Malformed("text that is not UTF-8"))
}
