//! Measures the bare step of one rank in bf16 on images of noise: forward, backward, update,
//! and nothing else. It is an upper bound of the training throughput on a device, and what to
//! profile.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use c10d::cuda::Cuda;
use tch::{Device, Kind, Reduction, Tensor};
use worker::model::{ResNet18, Statistics};
use worker::trainer::optimizer::Adam;

const CLASSES: i64 = 102;
const RATES: [f64; 6] = [1e-5; 6];

fn main() -> ExitCode {
    kernels::keep_freed_memory();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers = words.iter().take(4).map(|word| word.parse());
    let (Ok(&[batch, size, threads, steps]), device) = (
        numbers.collect::<Result<Vec<i64>, _>>().as_deref(),
        words.get(4).map_or("cpu", String::as_str),
    ) else {
        eprintln!("usage: step BATCH SIZE THREADS STEPS [cpu|cuda]");
        return ExitCode::from(2);
    };
    tch::set_num_threads(threads as i32);
    match chosen(device).and_then(|device| measure(batch, size, steps, device)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn chosen(name: &str) -> Result<Device, Box<dyn Error>> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "cuda" => match c10d::cuda::load()? {
            Cuda::Ready { .. } => Ok(Device::Cuda(0)),
            Cuda::Absent { reason } | Cuda::Unusable { reason } => {
                Err(format!("no usable GPU: {reason}").into())
            }
        },
        other => Err(format!("`{other}` is neither cpu nor cuda").into()),
    }
}

fn measure(batch: i64, size: i64, steps: i64, device: Device) -> Result<(), Box<dyn Error>> {
    tch::manual_seed(1);
    let model = ResNet18::new(CLASSES, device, 1);
    let mut adam = Adam::new(model.parameters(), 0.0);
    let images = Tensor::randn([batch, size, size, 3], (Kind::Float, device));
    let images = images.permute([0, 3, 1, 2]).to_kind(Kind::BFloat16);
    let labels = Tensor::randint(CLASSES, [batch], (Kind::Int64, device));
    for _ in 0..steps {
        let began = Instant::now();
        adam.zero_grad()?;
        let logits = kernels::autocast_bf16(device, || model.forward(&images, Statistics::Batch))?;
        let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        let forward = began.elapsed().as_secs_f64();
        loss.backward();
        let backward = began.elapsed().as_secs_f64() - forward;
        adam.step(&RATES)?;
        // Reading a parameter waits for all that a GPU was given.
        let _ = model.parameters()[0]
            .tensor
            .sum(Kind::Float)
            .double_value(&[]);
        let whole = began.elapsed().as_secs_f64();
        print!("{:.2} images/s", batch as f64 / whole);
        if device == Device::Cpu {
            let update = whole - forward - backward;
            print!(": forward {forward:.3} s, backward {backward:.3} s, update {update:.3} s");
        }
        println!(", loss {:.5}", loss.double_value(&[]));
    }
    Ok(())
}
