//! Beside PyTorch.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::launches::{exists, output};
use crate::report::Seen;
use crate::setting::{Setting, Waits};

pub(crate) fn check(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("tests/bench/main.py").is_file() {
        return Err(Waits::for_("a checkout of the sources"));
    }
    if let Some(missing) = ["make", "python3"].into_iter().find(|tool| !exists(tool)) {
        return Err(Waits::for_(missing));
    }
    let mut command = Command::new("make");
    command.current_dir(&root);
    command.args(["bench", "DEVICE=cuda", "WORKERS=1", "EPOCHS=8", "ROUNDS=1"]);
    if setting.dry {
        command.arg("DRY=1");
    }
    let (good, text) = output(&mut command);
    let last = text.lines().last().unwrap_or_default();
    assert!(good, "make bench fails: {last}\n{text}");
    if setting.dry {
        seen.add("commands", text.matches("--device cuda").count());
        return Ok(());
    }
    let written = text
        .lines()
        .find_map(|line| line.strip_prefix("written: ")?.strip_suffix(".md, .json"));
    let written = written
        .map(|name| root.join(format!("{name}.json")))
        .expect("a file of results");
    let results = std::fs::read(written).expect("the results");
    let results: Value = serde_json::from_slice(&results).expect("results in JSON");
    let ours = images_per_second(&results, "ours");
    let tuned = images_per_second(&results, "tuned");
    seen.figure("images/s", ours);
    seen.figure("of tuned PyTorch", tuned);
    assert!(
        ours >= tuned,
        "{ours:.0} images/s, tuned PyTorch {tuned:.0}"
    );
    Ok(())
}

/// In the median of the epochs after the first.
fn images_per_second(results: &Value, variant: &str) -> f64 {
    let epochs = results["runs"]["1"][variant][0]["epochs"].as_array();
    let later = epochs.into_iter().flatten().skip(1);
    let mut seconds: Vec<f64> = later
        .filter_map(|epoch| epoch["train_seconds"].as_f64())
        .collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    results["images"].as_f64().unwrap_or(f64::NAN) / median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_results_are_read() {
        let file = "../tests/bench/results/amd-epyc-2-cores.json";
        let text =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("results");
        let results: Value = serde_json::from_slice(&text).expect("JSON");
        for variant in ["ours", "tuned"] {
            let speed = images_per_second(&results, variant);
            assert!(speed > 10.0 && speed < 200.0, "{variant}: {speed}");
        }
    }
}
