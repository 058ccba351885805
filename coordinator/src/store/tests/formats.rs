//! Numbers that come back to the last bit, and files from elsewhere.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn losses_come_back_to_the_last_bit(
        losses in prop::collection::vec([prop::num::f64::ANY, prop::num::f64::ANY], 1..5),
        rate in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL,
    ) {
        let written: Vec<_> = losses
            .iter()
            .zip(1..)
            .map(|([train, validation], epoch)| {
                let mut record = record(epoch, *validation);
                record.train_loss = *train;
                record.lrs[5] = rate;
                record
            })
            .collect();
        let text = epochs::encode(&written).unwrap();
        let read = epochs::decode(&text, Path::new(METRICS)).unwrap();
        prop_assert_eq!(read.len(), written.len());
        // What is not finite is written as null, and comes back as NaN.
        let bits = |loss: f64| if loss.is_finite() { Some(loss.to_bits()) } else { None };
        for (mut read, mut written) in read.into_iter().zip(written) {
            for (read, written) in [
                (&mut read.train_loss, &mut written.train_loss),
                (&mut read.validation_loss, &mut written.validation_loss),
            ] {
                prop_assert_eq!(bits(*read), bits(*written));
                prop_assert!(!read.is_infinite());
                (*read, *written) = (0.0, 0.0);
            }
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        let _ = header::epoch(&path);
        let _ = epochs::decode(&bytes, &path);
    }
}

#[test]
fn a_damaged_line_of_metrics_is_named() {
    let good =
        String::from_utf8(epochs::encode(&[record(1, 0.5), record(2, 0.5)]).unwrap()).unwrap();
    for (text, line, what) in [
        (good.trim_end().to_owned(), 2, "it is cut short"),
        (
            good.replace("\"epoch\":2", "\"epoch\":1"),
            2,
            "epoch 1 follows epoch 1",
        ),
        (
            good.replace("\"epoch\":1", "\"epochs\":1"),
            1,
            "unknown field `epochs`",
        ),
        (
            good.replace("\"validation_loss\":0.5,", ""),
            1,
            "missing field `validation_loss`",
        ),
        (good.replacen("0.75", "null", 1), 1, "invalid type: null"),
        (
            good.replace("\"total\":2.5,", ""),
            1,
            "missing key `total` of `seconds`",
        ),
        (format!("{good}\n"), 3, "EOF"),
    ] {
        let refused = epochs::decode(text.as_bytes(), Path::new("run/metrics.jsonl"));
        let refused = refused.unwrap_err().to_string();
        let begin = format!("run/metrics.jsonl is damaged in line {line}: {what}");
        assert!(refused.starts_with(&begin), "{refused}");
    }
}

#[test]
fn best_weights_tell_their_epoch() {
    let (_parent, store) = new_store();
    let header = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let tensor = "\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}";
    let mut whole = header(&format!(
        "{{\"__metadata__\":{{\"epoch\":\"7\",\"x\":\"y\"}},{tensor}}}  "
    ));
    whole.extend([0; 4]);
    let mut promise = 100_000_000_u64.to_le_bytes().to_vec();
    promise.push(b'{');
    let cases: [(_, Result<_, &str>); 8] = [
        (whole.clone(), Ok(Some(7))),
        (header(&format!("{{{tensor}}}")), Ok(None)),
        (header("{\"__metadata__\":{}}"), Ok(None)),
        (
            header("{\"__metadata__\":{\"epoch\":\"-1\"}}"),
            Err("its epoch is `-1`"),
        ),
        (whole[..5].to_vec(), Err("it ends within its header")),
        (promise, Err("it ends within its header")),
        (vec![0xff; 64], Err("more than the format's 100000000")),
        (header("{]"), Err("its header cannot be read")),
    ];
    for (bytes, expected) in cases {
        store.write(BEST_WEIGHTS, &bytes).unwrap();
        match (store.best_epoch(), expected) {
            (Ok(epoch), Ok(expected)) => assert_eq!(epoch, expected),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (got, expected) => panic!("{got:?}, not {expected:?}"),
        }
    }
}
