//! Measures the bare step of one rank on the CPU, in bf16, on pictures made of noise: forward,
//! backward, update, and nothing else. It is the ceiling of what training can reach there, and
//! what a profile is made of.

use std::process::ExitCode;
use std::time::Instant;

use tch::{Device, Kind, Reduction, Tensor};
use worker::model::{BatchNorm, ResNet18};
use worker::train::optimizer::Adam;

const CLASSES: i64 = 102;
const RATES: [f64; 6] = [1e-5; 6];

fn main() -> ExitCode {
    c10d::keep_freed_memory();
    let numbers: Result<Vec<i64>, _> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse())
        .collect();
    let Ok(&[batch, size, threads, steps]) = numbers.as_deref() else {
        eprintln!("usage: step BATCH SIZE THREADS STEPS");
        return ExitCode::from(2);
    };
    match measure(batch, size, threads as i32, steps) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(
    batch: i64,
    size: i64,
    threads: i32,
    steps: i64,
) -> Result<(), Box<dyn std::error::Error>> {
    tch::set_num_threads(threads);
    tch::manual_seed(1);
    let device = Device::Cpu;
    let model = ResNet18::new(CLASSES, device, 1);
    let mut adam = Adam::new(model.parameters(), 0.0);
    let images = Tensor::randn([batch, size, size, 3], (Kind::Float, device));
    let images = images.permute([0, 3, 1, 2]).to_kind(Kind::BFloat16);
    let labels = Tensor::randint(CLASSES, [batch], (Kind::Int64, device));
    for _ in 0..steps {
        let began = Instant::now();
        adam.zero_grad()?;
        let logits = c10d::autocast_bf16(device, || model.forward(&images, BatchNorm::Batch))?;
        let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        let forward = began.elapsed().as_secs_f64();
        loss.backward();
        let backward = began.elapsed().as_secs_f64() - forward;
        adam.step(&RATES)?;
        let whole = began.elapsed().as_secs_f64();
        println!(
            "{:.2} images/s: forward {forward:.3} s, backward {backward:.3} s, update {:.3} s, loss {:.5}",
            batch as f64 / whole,
            whole - forward - backward,
            loss.double_value(&[])
        );
    }
    Ok(())
}
