//! Components and the imports between them: as the sources have them, and as the README draws them.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, Module, Name};

/// Crates, by the name in a path, and the root files of each.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &["proto/src/lib.rs"]),
    ("common", &["proto/common/src/lib.rs"]),
    ("coordinator_core", &["coordinator/core/src/lib.rs"]),
    (
        "coordinator",
        &["coordinator/src/lib.rs", "coordinator/src/main.rs"],
    ),
    ("worker", &["worker/src/lib.rs", "worker/src/main.rs"]),
    ("worker_control", &["worker/control/src/lib.rs"]),
    ("worker_data", &["worker/data/src/lib.rs"]),
    ("c10d", &["worker/c10d/src/lib.rs"]),
    ("kernels", &["worker/kernels/src/lib.rs"]),
    ("shim", &["worker/shim/src/lib.rs"]),
];

/// The component that a module and all below it belong to. The first match counts.
const COMPONENTS: &[(&str, &str)] = &[
    ("proto", "proto"),
    ("common", "common"),
    ("coordinator_core", "core"),
    ("coordinator::main", "app"),
    ("coordinator::app", "app"),
    ("coordinator::cli", "cli"),
    ("coordinator::config", "config"),
    ("coordinator::net", "net"),
    ("coordinator::store", "store"),
    ("coordinator::launcher", "launcher"),
    ("coordinator::observe", "observe"),
    ("coordinator::admin", "admin"),
    ("coordinator::runtime", "runtime"),
    ("coordinator::rpc", "rpc"),
    ("worker::trainer", "worker/trainer"),
    ("worker::model", "worker/model"),
    // Also what the program has beside it: its flags, its logs, its exit code.
    ("worker", "worker/agent"),
    ("worker_control", "worker/control"),
    ("worker_data", "worker/data"),
    ("c10d", "worker/c10d"),
    ("kernels", "worker/kernels"),
    ("shim", "worker/shim"),
];

/// Who imports whom, each with a place that does.
pub(crate) type Arrows = BTreeMap<(String, String), String>;

/// The components of the sources.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) components: BTreeSet<String>,
    pub(crate) arrows: Arrows,
    /// Modules that belong to no component.
    pub(crate) unassigned: BTreeSet<String>,
}

/// The components in the sources, and their imports.
pub(crate) fn in_sources() -> Sources {
    let mut found = Sources::default();
    for module in CRATES.iter().flat_map(modules_of) {
        let imports: Vec<(Name, Vec<String>)> = source::names(&module.tokens)
            .into_iter()
            .filter_map(|name| resolve(&module.name, &name).map(|target| (name, target)))
            .collect();
        let Some(from) = component(&module.name) else {
            // The root of a crate of several components only declares them.
            if !imports.is_empty() {
                found.unassigned.insert(module.name.join("::"));
            }
            continue;
        };
        found.components.insert(from.to_owned());
        for (name, target) in imports {
            match component(&target) {
                Some(to) if to != from => {
                    let path = name.segments.join("::");
                    let place = format!("{}:{}: {path}", module.file, name.line);
                    let arrow = (from.to_owned(), to.to_owned());
                    found.arrows.entry(arrow).or_insert(place);
                }
                Some(_) => {}
                None => {
                    let module: Vec<String> = target.into_iter().take(2).collect();
                    found.unassigned.insert(module.join("::"));
                }
            }
        }
    }
    found
}

fn modules_of((name, roots): &(&str, &[&str])) -> Vec<Module> {
    let roots = roots
        .iter()
        .filter(|root| source::root().join(root).exists());
    let found = roots.flat_map(|root| {
        let mut modules = source::modules(name, root);
        for module in &mut modules {
            if module.file.ends_with("main.rs") {
                module.name.push("main".to_owned());
            }
        }
        modules
    });
    found.collect()
}

fn component(module: &[String]) -> Option<&'static str> {
    let found = COMPONENTS.iter().find(|(prefix, _)| {
        let prefix: Vec<&str> = prefix.split("::").collect();
        module.len() >= prefix.len() && prefix.iter().zip(module).all(|(a, b)| a == b)
    });
    found.map(|(_, component)| *component)
}

/// The same path from the name of its crate on; none if it leads to a crate of others.
fn resolve(module: &[String], name: &Name) -> Option<Vec<String>> {
    let crate_name = |name: &str| CRATES.iter().any(|(known, _)| *known == name);
    let mut base = module.to_vec();
    let mut rest = name.segments.as_slice();
    match rest[0].as_str() {
        "crate" => base.truncate(1),
        "self" => {}
        "super" => {
            while let Some((first, others)) = rest.split_first()
                && first == "super"
            {
                base.pop();
                rest = others;
            }
            base.extend_from_slice(rest);
            return Some(base);
        }
        first if crate_name(first) => return Some(name.segments.clone()),
        _ => return None,
    }
    base.extend_from_slice(&rest[1..]);
    Some(base)
}

/// The block of the README that begins with this line.
const TITLE: &str = "# component -> the components that it imports";

/// The imports that the README has, by lines `component -> component, component`; a line of a
/// component without imports is its name, and lines that begin with `#` are for the reader.
pub(crate) fn in_readme() -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let readme = std::fs::read_to_string(source::root().join("README.md")).expect("a README");
    let (_, block) = readme.split_once(TITLE).expect("the README has a map");
    let (block, _) = block.split_once("```").expect("the block ends");
    let (mut arrows, mut components) = (BTreeSet::new(), BTreeSet::new());
    for line in block.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (from, to) = line.split_once("->").unwrap_or((line, ""));
        components.insert(from.trim().to_owned());
        for to in to.split(',').map(str::trim).filter(|to| !to.is_empty()) {
            arrows.insert((from.trim().to_owned(), to.to_owned()));
        }
    }
    (arrows, components)
}

/// The lines that the README has to have for these sources.
pub(crate) fn drawn(sources: &Sources) -> String {
    let mut lines: Vec<String> = Vec::new();
    for from in &sources.components {
        let to = sources.arrows.keys().filter(|(found, _)| found == from);
        let to: Vec<&str> = to.map(|(_, to)| to.as_str()).collect();
        lines.push(match to.is_empty() {
            true => from.clone(),
            false => format!("{from} -> {}", to.join(", ")),
        });
    }
    lines.join("\n")
}

/// A way from a component back to itself, if there is one.
pub(crate) fn cycle(arrows: &BTreeSet<(String, String)>) -> Option<Vec<String>> {
    let mut left: BTreeSet<&(String, String)> = arrows.iter().collect();
    // Whatever imports nothing that is left is in no cycle.
    loop {
        let importers: BTreeSet<&String> = left.iter().map(|(from, _)| from).collect();
        let before = left.len();
        let next: BTreeSet<_> = left
            .iter()
            .copied()
            .filter(|(_, to)| importers.contains(to))
            .collect();
        left = next;
        if left.len() == before {
            break;
        }
    }
    let mut way = vec![left.first()?.0.clone()];
    loop {
        let last = way.last()?;
        let (_, next) = left.iter().find(|(from, _)| from == last)?;
        if let Some(start) = way.iter().position(|seen| seen == next) {
            let mut cycle = way.split_off(start);
            cycle.push(next.clone());
            return Some(cycle);
        }
        way.push(next.clone());
    }
}
