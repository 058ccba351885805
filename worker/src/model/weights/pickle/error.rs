//! Why a pickle cannot be read, and where.

/// A pickle that is damaged or holds more than tensors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at byte {offset} of its data.pkl")]
pub struct PickleError {
    /// The place of the opcode.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a pickle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It ends in the middle.
    #[error("cut off")]
    CutOff,
    /// An opcode that state dicts do without.
    #[error("opcode 0x{0:02x}, which state dicts do not need")]
    Opcode(u8),
    /// A name outside the list of what stands for tensors.
    #[error(
        "it refers to {0}, which is not read: save a plain state dict, \
         torch.save(model.state_dict(), ...)"
    )]
    Global(String),
    /// An opcode whose operands are not what it works on.
    #[error("malformed ({0})")]
    Malformed(&'static str),
}
