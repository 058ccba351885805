//! Measures the decoder on one thread: reads paths from stdin, decodes all of them as often as
//! asked, and prints images a second, a line for each round. `make bench` sets Pillow beside it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use worker_data::decode::decode;

fn main() -> ExitCode {
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let [size, rounds] = numbers[..] else {
        eprintln!("usage: decode SIZE ROUNDS < PATHS");
        return ExitCode::from(2);
    };
    let paths: Vec<PathBuf> = match io::stdin().lines().collect::<Result<Vec<_>, _>>() {
        Ok(lines) => lines.into_iter().map(PathBuf::from).collect(),
        Err(error) => {
            eprintln!("the paths cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    for _ in 0..rounds {
        let began = Instant::now();
        for path in &paths {
            if let Err(error) = decode(path, size) {
                eprintln!("{} {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
        println!("{:.1}", paths.len() as f64 / began.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}
