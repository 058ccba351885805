use proptest::prelude::*;

use super::machine::Machine;
use super::{Problem, state_dicts};

/// Opcodes of the recorded files and their neighbours, so that random programs get somewhere.
const OPCODES: &[u8] =
    b"().NKMJGXBCQRabehijqrstu}]\x80\x85\x86\x87\x88\x89\x8a\x8c\x8d\x93\x94\x95c";

#[test]
fn foreign_names_are_refused_by_name() {
    let error = state_dicts(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err();
    assert_eq!(error.offset, 2);
    assert_eq!(error.problem, Problem::Global("os.system".to_owned()));
    let by_stack = state_dicts(b"\x80\x04\x8c\x02os\x8c\x06system\x93.").unwrap_err();
    assert_eq!(by_stack.problem, error.problem);
}

#[test]
fn nesting_and_cycles_neither_overflow_nor_hang() {
    let mut nested = b"N".to_vec();
    nested.resize(1_000_000, 0x85);
    nested.push(b'.');
    assert!(state_dicts(&nested).unwrap().is_empty());
    // A list, kept, that is put into itself.
    assert!(state_dicts(b"]q\x00h\x00a.").unwrap().is_empty());
}

#[test]
fn doubling_by_the_memo_costs_no_memory() {
    // Each line makes a pair of what the last one made: 2^60 leaves if they were copied.
    let mut program = b"Nq\x00".to_vec();
    program.extend(b"h\x00h\x00\x86q\x00".repeat(60));
    program.push(b'.');
    let (heap, _) = Machine::run(&program).unwrap();
    assert_eq!(heap.len(), 60);
}

#[test]
fn a_wide_tuple_is_no_shape() {
    let storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NNtQ";
    let wide = [&b"("[..], &b"K\x01".repeat(9), b"t"].concat();
    let program = [
        &b"ctorch._utils\n_rebuild_tensor_v2\n("[..],
        storage,
        b"K\x00",
        &wide,
        &wide,
        b"tR.",
    ]
    .concat();
    let problem = state_dicts(&program).unwrap_err().problem;
    assert_eq!(
        problem,
        Problem::Malformed("a tensor of too many dimensions")
    );
}

proptest! {
    #[test]
    fn any_program_ends_with_a_result_and_few_objects(
        program in prop::collection::vec(
            prop_oneof![4 => prop::sample::select(OPCODES), 1 => any::<u8>()],
            0..200,
        )
    ) {
        if let Ok((heap, _)) = Machine::run(&program) {
            prop_assert!(heap.len() <= program.len());
        }
    }
}
