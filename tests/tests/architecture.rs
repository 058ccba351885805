//! The sources match the architecture in the README, and stay readable: the imports between
//! components are those of the map, without a cycle, and files and functions have limits.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "architecture/map.rs"]
mod map;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeSet;

use source::{File, functions, has_word, names, without_tests};

const LINES_OF_A_FILE: usize = 400;
const LINES_OF_A_FUNCTION: usize = 80;
const LINES_OF_MAIN: usize = 100;

/// Fails if the sources break a rule.
fn judge(rule: &str, violations: BTreeSet<String>) {
    let lines: String = violations
        .iter()
        .map(|line| format!("\n  {line}"))
        .collect();
    assert!(violations.is_empty(), "{rule}:{lines}");
}

fn is_test(file: &File) -> bool {
    let mut parts = file.path.split('/');
    parts.any(|part| matches!(part, "tests" | "tests.rs"))
}

#[test]
fn the_map_in_the_readme_is_the_map_of_the_imports() {
    let sources = map::in_sources();
    let (arrows, components) = map::in_readme();
    println!("the map of the sources:\n{}\n", map::drawn(&sources));
    let unassigned = sources.unassigned;
    assert!(
        unassigned.is_empty(),
        "modules of no component: {unassigned:?}"
    );
    assert_eq!(
        components, sources.components,
        "components in the README, and in the sources"
    );
    let mut missing = BTreeSet::new();
    for (arrow, place) in &sources.arrows {
        if !arrows.contains(arrow) {
            let (from, to) = arrow;
            println!("{from} -> {to} is not in the README: {place}");
            missing.insert(format!("{from} -> {to}"));
        }
    }
    judge("import", missing);
    let unused = arrows
        .iter()
        .filter(|arrow| !sources.arrows.contains_key(arrow));
    let unused: Vec<_> = unused.collect();
    assert!(
        unused.is_empty(),
        "in the README, and no import: {unused:?}"
    );
    assert_eq!(
        map::cycle(&arrows),
        None,
        "components that import each other"
    );
}

#[test]
fn files_and_functions_are_short() {
    let mut found = BTreeSet::new();
    for file in source::files() {
        let limit = match file.path.ends_with("/main.rs") && file.path.contains("/src/") {
            true => LINES_OF_MAIN,
            false => LINES_OF_A_FILE,
        };
        if file.lines > limit {
            println!("{} has {} lines", file.path, file.lines);
            found.insert(format!("{} has more than {limit} lines", file.path));
        }
        for function in functions(&file.tokens) {
            if function.lines > LINES_OF_A_FUNCTION {
                println!(
                    "{}: {} has {} lines",
                    file.path, function.name, function.lines
                );
                found.insert(format!("{}: {}", file.path, function.name));
            }
        }
    }
    judge("length", found);
}

#[test]
fn messages_of_the_wire_stay_at_its_edge() {
    let edge = [
        "proto/",
        "coordinator/src/rpc/",
        "worker/src/agent/",
        "tests/",
    ];
    let found = source::files()
        .into_iter()
        .filter(|file| !is_test(file) && !edge.iter().any(|edge| file.path.starts_with(edge)))
        .filter(|file| {
            let mut names = names(&file.tokens).into_iter();
            names.any(|name| name.segments.iter().any(|segment| segment == "v1"))
        })
        .map(|file| file.path)
        .collect();
    judge("wire", found);
}

#[test]
fn the_state_machines_do_no_io_and_read_no_clock() {
    let impure = [
        ["std", "fs"],
        ["std", "net"],
        ["std", "process"],
        ["Instant", "now"],
        ["SystemTime", "now"],
    ];
    let pure = ["coordinator/core/src/", "worker/control/src/"];
    let core = |file: &File| pure.iter().any(|at| file.path.starts_with(at)) && !is_test(file);
    let simulated = |file: &File| file.path.starts_with("coordinator/core/src/simulation/");
    let mut found = BTreeSet::new();
    for file in source::files()
        .into_iter()
        .filter(|file| core(file) && !simulated(file))
    {
        for name in names(&without_tests(file.tokens)) {
            let mut pairs = name.segments.windows(2);
            let foreign = name
                .segments
                .iter()
                .any(|word| word == "tokio" || word == "SystemTime");
            if foreign || pairs.any(|pair| impure.iter().any(|impure| pair == impure)) {
                found.insert(format!("{}: {}", file.path, name.segments.join("::")));
            }
        }
    }
    judge("purity", found);
}

#[test]
fn unsafe_code_is_in_the_crates_that_wrap_libtorch() {
    let wrappers = ["worker/c10d/", "worker/kernels/", "worker/shim/"];
    let found = source::files()
        .into_iter()
        .filter(|file| {
            !wrappers
                .iter()
                .any(|wrapper| file.path.starts_with(wrapper))
        })
        .filter(|file| has_word(&file.tokens, "unsafe"))
        .map(|file| file.path)
        .collect();
    judge("unsafe", found);
}

#[test]
fn public_types_are_documented() {
    // It gives no reason.
    let excuse = "the names say it";
    let found = source::files()
        .into_iter()
        .filter(|file| {
            file.tokens
                .to_string()
                .contains(&format!("reason = \"{excuse}"))
        })
        .map(|file| file.path)
        .collect();
    judge("documentation", found);
}

/// The checks above find what they look for.
#[test]
fn samples_are_read_as_expected() {
    let tokens = |text: &str| text.parse::<proc_macro2::TokenStream>().expect("tokens");
    let all_names = |text: &str| -> Vec<String> {
        let names = names(&without_tests(tokens(text)));
        names.iter().map(|name| name.segments.join("::")).collect()
    };
    let text = "use crate::{net, store::{Upload, hex as other}};
        #[cfg(test)] use crate::a::{b, c}; #[cfg(test)] mod tests { use super::x::*; }
        fn run() { let at: core::time::Duration = proto::v1::get(\"a::b\"); // c::d
            assert!(super::limits::<u8>(), config::Mode::On); }";
    let expected = [
        "crate::net",
        "crate::store::Upload",
        "crate::store::hex",
        "core::time::Duration",
        "proto::v1::get",
        "super::limits",
        "config::Mode::On",
    ];
    assert_eq!(all_names(text), expected);
    let found = functions(&tokens(
        "trait T { fn a(); }\nproptest! { #[test]\nfn b(x in 0..2) {\n\n} }",
    ));
    let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.lines)).collect();
    assert_eq!(found, [("b", 3)]);
    assert!(has_word(&tokens("fn a() { unsafe { b() } }"), "unsafe"));
    assert!(!has_word(&tokens("fn a() { \"unsafe\"; }"), "unsafe"));
    let arrows = |all: &[(&str, &str)]| {
        let arrows = all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        arrows.collect::<BTreeSet<_>>()
    };
    assert_eq!(
        map::cycle(&arrows(&[("a", "b"), ("b", "c"), ("a", "c")])),
        None
    );
    let cycle = map::cycle(&arrows(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]));
    assert_eq!(
        cycle.as_deref(),
        Some(&["b", "c", "b"].map(str::to_owned)[..])
    );
}
