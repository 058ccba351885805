//! The outcomes of many faults as a table in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The outcome of one fault.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) cause: String,
    pub(crate) same: bool,
    /// From the fault to the first step of the next generation.
    pub(crate) seconds: Option<f64>,
    /// None if it is not known: a killed coordinator may not have received the last reports.
    pub(crate) steps_lost: Option<u64>,
}

/// One line for each cause.
pub(crate) fn by_cause(rows: &[Row]) -> String {
    let mut causes: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        causes.entry(&row.cause).or_default().push(row);
    }
    let mut text = String::from(
        "| cause | runs | same result | recovery, median | maximum | most steps lost |\n\
         |---|---:|---|---:|---:|---:|",
    );
    for (cause, rows) in causes {
        let differ = rows.iter().filter(|row| !row.same).count();
        let seconds: Vec<f64> = rows.iter().filter_map(|row| row.seconds).collect();
        let lost = rows.iter().filter_map(|row| row.steps_lost).max();
        let lost = lost.map_or_else(|| "not known".to_owned(), |lost| lost.to_string());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n| {cause} | {} | {} | {} | {lost} |",
            rows.len(),
            match differ {
                0 => "yes".to_owned(),
                differ => format!("no: {differ}"),
            },
            times(seconds),
        );
    }
    text
}

/// None of none.
pub(crate) fn median(mut seconds: Vec<f64>) -> Option<f64> {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

/// Median and maximum, as two cells.
pub(crate) fn times(seconds: Vec<f64>) -> String {
    let maximum = seconds.iter().copied().max_by(f64::total_cmp);
    match (median(seconds), maximum) {
        (Some(median), Some(maximum)) => format!("{median:.2} s | {maximum:.2} s"),
        _ => "none needed |".to_owned(),
    }
}
