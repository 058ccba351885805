//! What the pixels of the curves tell.

use super::*;
use std::io::Cursor;

fn point(epoch: u32, train_loss: f64, validation_loss: f64) -> FinishedEpoch {
    FinishedEpoch {
        epoch,
        train_loss,
        validation_loss,
        validation_accuracy: 0.9,
        ..FinishedEpoch::default()
    }
}

/// Counts the pixels of exactly this colour, after checking the size of the image.
fn count(png: &[u8], colour: RGBColor) -> usize {
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), SIZE);
    let RGBColor(r, g, b) = colour;
    pixels
        .chunks_exact(3)
        .filter(|pixel| *pixel == [r, g, b])
        .count()
}

#[test]
fn curves_appear_in_their_colours_and_gaps_are_left_open() {
    let line: Vec<_> = (1..=15).map(|e| point(e, 1.0, 0.5)).collect();
    let whole = render(&line, Some(5), "patience").unwrap();
    let mut gap = line.clone();
    gap[6].train_loss = f64::NAN;
    gap[7].train_loss = f64::INFINITY;
    let gapped = render(&gap, Some(5), "patience").unwrap();
    // Three of fourteen equal segments are missing.
    let (all, left) = (count(&whole, BLUE), count(&gapped, BLUE));
    assert!(
        left < all * 9 / 10 && left > all * 6 / 10,
        "{left} of {all}"
    );
    assert_eq!(count(&whole, VERMILION), count(&gapped, VERMILION));
    assert!(count(&whole, GREEN) > 500);
    let other = render(&line, Some(6), "max_epochs").unwrap();
    assert_ne!(
        whole, other,
        "the best epoch is marked and the reason is named"
    );
}

#[test]
fn one_epoch_many_epochs_and_no_finite_value_are_drawn() {
    let one = render(&[point(1, 0.7, 0.4)], Some(1), "max_epochs").unwrap();
    // Beyond the legend's share, a lone mark must be there.
    assert!(
        count(&one, BLUE)
            > count(
                &render(&[point(1, f64::NAN, 0.4)], Some(1), "").unwrap(),
                BLUE
            )
    );
    let many: Vec<_> = (1..=200)
        .map(|e| point(e, 4.0 / f64::from(e), 0.3))
        .collect();
    render(&many, Some(900), "max_epochs").unwrap();
    let lost = [point(1, f64::NAN, f64::NEG_INFINITY)];
    render(&lost, Some(1), "non_finite_loss").unwrap();
    for extreme in [0.0, -3.0, 1e-30, 1e30, 1e300, f64::MAX] {
        let points = [point(1, extreme, 0.1), point(2, 2.0, extreme)];
        render(&points, Some(2), "max_epochs").unwrap();
        let (low, high) = (0.1_f64.min(extreme), 0.1_f64.max(extreme));
        let range = range_of([extreme, 0.1].iter(), true);
        assert!(
            range.start < range.end && range.end.is_finite(),
            "{range:?}"
        );
        if is_drawn(extreme) {
            assert!(range.start <= low && high <= range.end, "{range:?}");
        }
    }
    let none = render(&[], None, "interrupted").unwrap_err();
    assert_eq!(none.to_string(), "the run finished no epoch");
}

#[test]
fn ticks_are_round_and_few() {
    assert_eq!(ticks(1, 1), [1]);
    assert_eq!(ticks(1, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(ticks(3, 57), [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55]);
    assert!(ticks(1, 5000).len() <= 11);
    assert!(ticks(0, u32::MAX).len() <= 11);
}
