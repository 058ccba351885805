//! A worker gets the list and complete images, or an error that names the reason.

use std::path::Path;

use common::blob::Assembly;
use prometheus::Registry;
use tonic::Code;

use super::*;
use crate::config::{Settings, Sources};
use crate::observe::metrics::RunFacts;

fn dataset(data: &Path) -> (Dataset, Registry) {
    let settings = Settings {
        data: Some(data.to_string_lossy().into_owned()),
        ..Default::default()
    };
    let sources = Sources {
        flags: settings,
        ..Default::default()
    };
    let config = RunConfig::load(&sources).unwrap().config;
    let registry = Registry::new();
    let facts = RunFacts {
        run: String::new(),
        dataset: String::new(),
        workers: 1,
        epochs: 1,
        patience: 1,
    };
    let metrics = Metrics::new(&registry, &facts).unwrap();
    (Dataset::new(&config, metrics), registry)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in [("a/1.jpg", 10), ("b/2.jpg", 3_000_000), ("b/3.jpg", 0)] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![7; bytes]).unwrap();
    }
    folder
}

async fn receive(mut images: Images) -> Result<Vec<(u32, usize)>, Status> {
    let mut received = Vec::new();
    while let Some(first) = images.recv().await {
        let mut assembly = Assembly::begin(Some(first?)).unwrap();
        while !assembly.is_whole() {
            assembly.add(images.recv().await.unwrap()?).unwrap();
        }
        let (header, bytes) = assembly.finish().unwrap();
        received.push((header.sample, bytes.len()));
    }
    Ok(received)
}

#[tokio::test]
async fn images_come_complete_and_in_the_order_asked() {
    let folder = folder();
    let (dataset, registry) = dataset(folder.path());
    assert_eq!(dataset.list().await.unwrap().files.len(), 3);
    let images = dataset.images(vec![2, 1, 0]).await.unwrap();
    let received = receive(images).await.unwrap();
    assert_eq!(received, [(2, 0), (1, 3_000_000), (0, 10)]);
    let sent = registry.gather().into_iter();
    let sent = sent.filter(|family| family.name() == "finetune_data_sent_bytes_total");
    let sent: f64 = sent
        .map(|f| f.get_metric()[0].get_counter().get_value())
        .sum();
    assert_eq!(sent, 3_000_010.0);
}

#[tokio::test]
async fn what_cannot_be_served_is_an_error() {
    let folder = folder();
    let (given, _) = dataset(folder.path());
    let code = |status: Status| status.code();
    let beyond = given.images(vec![0, 3]).await.unwrap_err();
    assert_eq!(code(beyond), Code::OutOfRange);
    std::fs::write(folder.path().join("b/2.jpg"), "other").unwrap();
    let changed = receive(given.images(vec![0, 1]).await.unwrap()).await;
    let changed = changed.unwrap_err();
    assert!(
        changed.message().contains("b/2.jpg: the file has 5 bytes"),
        "{changed}"
    );
    std::fs::remove_file(folder.path().join("b/2.jpg")).unwrap();
    let gone = receive(given.images(vec![1]).await.unwrap()).await;
    assert_eq!(code(gone.unwrap_err()), Code::DataLoss);

    let (nothing, _) = dataset(&folder.path().join("absent"));
    let absent = nothing.list().await.unwrap_err();
    assert!(absent.message().contains("no data folder at"), "{absent}");
    let (demo, _) = dataset(Path::new("demo"));
    assert_eq!(
        code(demo.list().await.unwrap_err()),
        Code::FailedPrecondition
    );
}
