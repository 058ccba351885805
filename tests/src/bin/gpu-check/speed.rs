//! Speed: of the step alone, and of a run, with what its GPU does meanwhile.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use integration_tests::{SMALL, STEADY, demo_set, journal};
use serde_json::Value;

use crate::launches::{exists, output, step};
use crate::report::Seen;
use crate::setting::{Setting, Waits, prepare};

const IMAGES: usize = 9000;

pub(crate) fn bare_step(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    let fake = setting.fake()?;
    let mut medians = Vec::new();
    for batch in ["128", "16"] {
        let mut command = Command::new(step()?);
        prepare(fake.as_ref(), "0", &mut command);
        // Batch, size, threads, steps.
        let numbers = setting.pick([batch, "224", "4", "60"], ["2", "32", "1", "2"]);
        let (good, text) = output(command.args(numbers).arg("cuda"));
        assert!(good, "the steps fail: {text}");
        let speeds = text
            .lines()
            .filter_map(|line| line.split(" images/s").next()?.parse().ok());
        let speeds: Vec<f64> = speeds.collect();
        assert_eq!(speeds.len().to_string(), numbers[3], "steps:\n{text}");
        if setting.dry {
            return Ok(());
        }
        let mut last = speeds[speeds.len() - 40..].to_vec();
        last.sort_by(f64::total_cmp);
        let (median, spread) = (last[20], (last[35] - last[4]) / last[20]);
        seen.figure(format!("images/s in batches of {batch}"), median);
        seen.figure(format!("spread at {batch}"), spread);
        medians.push((median, spread));
    }
    seen.figure("ratio of the two", medians[0].0 / medians[1].0);
    for (_, spread) in medians {
        assert!(spread <= 0.1, "a spread of {spread:.2}");
    }
    Ok(())
}

pub(crate) fn training(setting: &Setting, seen: &mut Seen) -> Result<(), Waits> {
    if !setting.dry && !exists("nvidia-smi") {
        return Err(Waits::for_("nvidia-smi"));
    }
    let folder = tempfile::tempdir_in(integration_tests::scratch()).expect("a folder");
    let images = setting.pick(IMAGES, 60);
    multiply(&demo_set(), folder.path(), images);
    let fake = setting.fake()?;
    let data = format!("--data={}", folder.path().display());
    // nvidia-smi looks once a second, and an epoch takes about three.
    let fast = [
        "--image-size=224",
        "--global-batch=128",
        "--epochs=12",
        "--patience=99",
        "--metrics-listen=127.0.0.1:0",
        "--metrics-linger=0",
    ];
    let dry = [SMALL, STEADY, &["--limit-per-class=1000", "--epochs=1"]].concat();
    let last = ["--workers=1", "--device=cuda", &data];
    let arguments = [setting.pick(&fast[..], &dry), &last].concat();
    let mut run = setting.run(fake.as_ref(), "0", &arguments);
    run.until("steps", |run| run.steps() > 0);
    let monitor = (!setting.dry).then(Monitor::start);
    run.until("the last epoch", |run| {
        run.epochs() + 1 >= setting.pick(12, 1)
    });
    let busy = monitor.map(Monitor::stop);
    let ended = run.wait().succeeded().left_no_process();

    let epochs = ended.epochs();
    // The first epoch is also that of the first of everything.
    let later = epochs
        .get(1..)
        .filter(|later| !later.is_empty())
        .unwrap_or(&epochs);
    let sum = |key: &str| -> f64 {
        later
            .iter()
            .filter_map(|e| e["seconds"][key].as_f64())
            .sum()
    };
    let total = sum("total");
    let (waited, written) = (
        sum("data_wait") / total,
        checkpoints(&ended.path()) / (total / later.len() as f64),
    );
    if setting.dry {
        assert!(waited.is_finite() && written.is_finite(), "{epochs:?}");
        return Ok(());
    }
    let speed = later
        .iter()
        .filter_map(|epoch| epoch["images_per_second"].as_f64())
        .sum::<f64>();
    seen.figure("images/s", speed / later.len() as f64);
    let busy = busy.unwrap_or_default();
    seen.figure("SM, %", busy);
    seen.figure("data wait, % of an epoch", 100.0 * waited);
    seen.figure("checkpoint, % of an epoch", 100.0 * written);
    assert!(busy >= 85.0, "SM at {busy:.0} %");
    assert!(
        waited < 0.02 && written < 0.1,
        "data wait or checkpoints take too long"
    );
    Ok(())
}

/// The mean seconds of a checkpoint.
fn checkpoints(run_dir: &Path) -> f64 {
    let entries: Vec<Value> = journal(run_dir);
    let seconds = entries
        .iter()
        .filter(|entry| entry["event"] == "checkpoint");
    let seconds: Vec<f64> = seconds
        .filter_map(|entry| entry["seconds"].as_f64())
        .collect();
    seconds.iter().sum::<f64>() / seconds.len().max(1) as f64
}

/// Links the images of a data set often enough into another one.
fn multiply(from: &Path, to: &Path, images: usize) {
    let mut found: Vec<(String, std::path::PathBuf)> = Vec::new();
    for class in std::fs::read_dir(from).expect("a data set").flatten() {
        let name = class.file_name().to_string_lossy().into_owned();
        std::fs::create_dir_all(to.join(&name)).expect("a folder");
        let files = std::fs::read_dir(class.path()).expect("a class").flatten();
        found.extend(files.map(|file| (name.clone(), file.path())));
    }
    found.sort_by_key(|(_, path)| path.file_name().map(ToOwned::to_owned));
    for (number, (class, path)) in (0..images).zip(found.iter().cycle()) {
        std::fs::hard_link(path, to.join(class).join(format!("{number:05}.jpg"))).expect("a link");
    }
}

/// `nvidia-smi dmon`, once a second.
struct Monitor(Child);

impl Monitor {
    fn start() -> Self {
        let mut command = Command::new("nvidia-smi");
        command
            .args(["dmon", "-s", "u", "-i", "0"])
            .stdout(Stdio::piped());
        Self(command.spawn().expect("nvidia-smi starts"))
    }

    /// The median share of time in which a kernel ran, in percent.
    fn stop(mut self) -> f64 {
        // It fails only if the child has exited already.
        let _ = self.0.kill();
        let output = self.0.wait_with_output().expect("a child of this process");
        median_of_dmon(&String::from_utf8_lossy(&output.stdout))
    }
}

/// The second column of all lines but the headings.
fn median_of_dmon(text: &str) -> f64 {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let shares = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    let mut shares: Vec<f64> = shares.collect();
    shares.sort_by(f64::total_cmp);
    shares.get(shares.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_share_of_the_multiprocessors_is_the_second_column() {
        let text = "# gpu     sm    mem    enc\n# Idx      %      %      %\n    0     91     40      0\n\
                    \x20   0     95     41      0\n    0      -      -      -\n    0     20      1      0\n";
        assert_eq!(super::median_of_dmon(text), 91.0);
    }
}
