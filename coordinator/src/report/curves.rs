//! Losses and accuracy over the epochs.

use plotters::prelude::*;

use super::{ReportError, encode, font};

const SIZE: (u32, u32) = (1200, 480);
/// Distinguishable in every common kind of colour blindness (Okabe, Ito, 2008).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);

/// One finished epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct EpochPoint {
    pub epoch: u32,
    pub train_loss: f64,
    pub validation_loss: f64,
    /// 0 to 1.
    pub validation_accuracy: f64,
}

/// Two panels: both losses with the best epoch marked, and the accuracy.
///
/// # Errors
/// When there is no epoch, or drawing fails.
pub fn render(
    epochs: &[EpochPoint],
    best: Option<u32>,
    title: &str,
) -> Result<Vec<u8>, ReportError> {
    const WHAT: &str = "curves";
    if epochs.is_empty() {
        return Err(ReportError::new(WHAT, "no epoch was finished"));
    }
    font::register();
    let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
    draw(&mut pixels, epochs, best, title).map_err(|error| ReportError::new(WHAT, error))?;
    encode(WHAT, &pixels, SIZE)
}

type DrawError = Box<dyn std::error::Error>;
type Panel<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

fn draw(
    pixels: &mut [u8],
    epochs: &[EpochPoint],
    best: Option<u32>,
    title: &str,
) -> Result<(), DrawError> {
    let root = BitMapBackend::with_buffer(pixels, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let body = root.titled(title, ("sans-serif", 22))?;
    let (left, right) = body.split_horizontally(SIZE.0 / 2);
    losses(&left, epochs, best)?;
    accuracy(&right, epochs, best)?;
    root.present()?;
    Ok(())
}

fn epoch_axis(epochs: &[EpochPoint]) -> std::ops::Range<f64> {
    let last = epochs.iter().map(|point| point.epoch).max().unwrap_or(1);
    0.5..f64::from(last) + 0.5
}

fn losses(panel: &Panel<'_>, epochs: &[EpochPoint], best: Option<u32>) -> Result<(), DrawError> {
    let highest = epochs
        .iter()
        .flat_map(|point| [point.train_loss, point.validation_loss])
        .filter(|loss| loss.is_finite())
        .fold(1e-6, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(epoch_axis(epochs), 0.0..highest * 1.08)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("epoch")
        .y_desc("mean loss (cross entropy, nats)")
        .x_labels(epochs.len().min(15) + 1)
        .x_label_formatter(&|x| whole(*x))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()?;
    let line = |loss: fn(&EpochPoint) -> f64| {
        epochs
            .iter()
            .map(move |point| (f64::from(point.epoch), loss(point)))
            .filter(|(_, loss)| loss.is_finite())
    };
    for (name, color, loss) in [
        (
            "training",
            BLUE,
            (|p| p.train_loss) as fn(&EpochPoint) -> f64,
        ),
        ("validation", ORANGE, |p| p.validation_loss),
    ] {
        chart
            .draw_series(LineSeries::new(line(loss), color.stroke_width(2)).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(2)));
    }
    if let Some(point) = epochs.iter().find(|point| Some(point.epoch) == best) {
        let at = (f64::from(point.epoch), point.validation_loss);
        let label = format!("best {:.3}", point.validation_loss);
        chart.draw_series([EmptyElement::at(at)
            + Circle::new((0, 0), 8, ORANGE.stroke_width(2))
            + Text::new(label, (-24, -28), ("sans-serif", 16))])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 16))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    Ok(())
}

fn accuracy(panel: &Panel<'_>, epochs: &[EpochPoint], best: Option<u32>) -> Result<(), DrawError> {
    let mut chart = ChartBuilder::on(panel)
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(epoch_axis(epochs), 0.0..100.0)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("epoch")
        .y_desc("validation accuracy (%)")
        .x_labels(epochs.len().min(15) + 1)
        .x_label_formatter(&|x| whole(*x))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()?;
    let points = epochs
        .iter()
        .map(|point| (f64::from(point.epoch), 100.0 * point.validation_accuracy))
        .filter(|(_, accuracy)| accuracy.is_finite());
    chart.draw_series(LineSeries::new(points.clone(), GREEN.stroke_width(2)).point_size(3))?;
    if let Some((x, y)) = points.clone().find(|(x, _)| best == Some(*x as u32)) {
        chart.draw_series([EmptyElement::at((x, y))
            + Circle::new((0, 0), 8, GREEN.stroke_width(2))
            + Text::new(format!("{y:.1} %"), (-22, 14), ("sans-serif", 16))])?;
    }
    Ok(())
}

/// Epochs are whole; ticks between them stay unlabelled.
fn whole(x: f64) -> String {
    if (x - x.round()).abs() < 1e-6 {
        format!("{x:.0}")
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_epoch_and_many_and_odd_values_are_drawn() {
        let point = |epoch: u32, loss: f64| EpochPoint {
            epoch,
            train_loss: loss,
            validation_loss: loss * 1.1,
            validation_accuracy: 0.5,
        };
        let many: Vec<_> = (1..=200)
            .map(|epoch| point(epoch, 1.0 / f64::from(epoch)))
            .collect();
        let one = render(&many[..1], Some(1), "one").unwrap();
        assert_ne!(one, render(&many, Some(200), "many").unwrap());
        assert_ne!(one, render(&[point(1, f64::NAN)], None, "no loss").unwrap());
        assert!(render(&[], None, "none").is_err());
    }
}
