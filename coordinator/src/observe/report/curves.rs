//! The curves of a run: losses and accuracy over the epochs, with the best epoch marked.
//!
//! Owns the layout of `curves.png`. Must not decide which epoch is best or why the run stopped.

use std::ops::Range;

use anyhow::ensure;
use coordinator_core::event::FinishedEpoch;
use coordinator_core::words::count;
use plotters::data::float::FloatPrettyPrinter;
use plotters::prelude::{
    BindKeyPoints, ChartBuilder, Circle, Color, DashedLineSeries, LabelAreaPosition, LineSeries,
    PathElement, RGBColor, SeriesLabelPosition, ShapeStyle,
};

use super::sheet::{self, Area, BLUE, FAINT, GREEN, GREY, INK, PAPER, SCALE, VERMILION, font, px};

const SIZE: (u32, u32) = (1360, 600);
/// Up to this many epochs each one gets a mark; more marks would merge into a band.
const MARKED_EPOCHS: usize = 40;
/// Larger values are not drawn, so that ranges around them stay finite.
const LARGEST: f64 = 1e100;
const NUMBERS: FloatPrettyPrinter = FloatPrettyPrinter {
    allow_scientific: true,
    min_decimal: 1,
    max_decimal: 4,
};

/// One curve: its name, colour and values, one for each epoch.
type Series = (&'static str, RGBColor, Vec<f64>);

/// One plot.
struct Panel<'a> {
    caption: &'a str,
    y_range: Range<f64>,
    /// The best epoch is marked on the last of these.
    series: Vec<Series>,
    legend: SeriesLabelPosition,
}

/// Draws the losses and the accuracy of `epochs` side by side as one RGB PNG, with `stop`, the
/// reason why the run ended, in the title. `best_epoch` is marked where it is one of `epochs`; a
/// value that is not finite leaves a gap.
///
/// # Errors
/// `epochs` is empty, or plotters refuses a shape.
pub fn render(
    epochs: &[FinishedEpoch],
    best_epoch: Option<u32>,
    stop: &str,
) -> anyhow::Result<Vec<u8>> {
    ensure!(!epochs.is_empty(), "the run finished no epoch");
    let column = |value: fn(&FinishedEpoch) -> f64| epochs.iter().map(value).collect::<Vec<f64>>();
    let (training, validation) = (column(|p| p.train_loss), column(|p| p.validation_loss));
    let accuracy = column(|p| 100.0 * p.validation_accuracy);
    let losses = Panel {
        caption: "Loss (mean cross entropy, nats)",
        y_range: range_of(training.iter().chain(&validation), true),
        series: vec![
            ("training", BLUE, training),
            ("validation", VERMILION, validation),
        ],
        legend: SeriesLabelPosition::UpperRight,
    };
    let accuracy = Panel {
        caption: "Top-1 accuracy (% of validation images)",
        y_range: range_of(accuracy.iter(), false),
        series: vec![("validation", GREEN, accuracy)],
        legend: SeriesLabelPosition::LowerRight,
    };
    let title = format!("{}, stopped: {stop}", count(epochs.len(), "epoch"));
    let best = epochs
        .iter()
        .position(|point| Some(point.epoch) == best_epoch);
    sheet::png(SIZE, |area| {
        let area = area.margin(px(16), px(12), px(20), px(28));
        let area = area.titled(&title, font(26, INK)?)?;
        let (left, right) = area.split_horizontally((area.dim_in_pixel().0 / 2) as i32);
        losses.draw(&left, epochs, best)?;
        accuracy.draw(&right, epochs, best)
    })
}

/// The range of the axis for `values`; `from_zero`, unless they would then lie flat at the top.
fn range_of<'a>(values: impl Iterator<Item = &'a f64>, from_zero: bool) -> Range<f64> {
    let values = values.copied().filter(|&value| is_drawn(value));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return 0.0..1.0;
    }
    // Equal values need a range around them, too.
    let least = (0.01 * high.abs().max(low.abs())).max(1e-9);
    let room = (0.08 * (high - low)).max(least);
    let from_zero = from_zero && low >= 0.0 && low < 0.6 * high;
    (if from_zero { 0.0 } else { low - room })..high + room
}

/// At most eleven of the epochs from `first` to `last`, at round numbers.
fn ticks(first: u32, last: u32) -> Vec<u32> {
    let powers = (0..10).map(|power| 10_u32.pow(power));
    let mut steps = powers.flat_map(|power| [1, 2, 5].map(|step| power.saturating_mul(step)));
    let step = steps.find(|step| (last - first) / step < 11);
    let step = step.unwrap_or(u32::MAX);
    let multiples = (first.div_ceil(step)..).map(|n| n.saturating_mul(step));
    multiples
        .take_while(|epoch| *epoch <= last)
        .take(11)
        .collect()
}

fn is_drawn(value: f64) -> bool {
    value.abs() < LARGEST
}

impl Panel<'_> {
    fn draw(
        &self,
        area: &Area,
        epochs: &[FinishedEpoch],
        best: Option<usize>,
    ) -> anyhow::Result<()> {
        let numbers = epochs.iter().map(|point| point.epoch);
        let first = numbers.clone().min().unwrap_or_default();
        let last = numbers.max().unwrap_or_default();
        let x_range = first.saturating_sub(1)..last.saturating_add(1);
        let mut chart = ChartBuilder::on(area)
            .caption(self.caption, font(19, INK)?)
            .margin(px(10))
            .x_label_area_size(px(56))
            .y_label_area_size(px(70))
            .build_cartesian_2d(
                x_range.with_key_points(ticks(first, last)),
                self.y_range.clone(),
            )?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(PAPER)
            .bold_line_style(FAINT.stroke_width(SCALE))
            .axis_style(GREY.stroke_width(SCALE))
            .label_style(font(16, INK)?)
            .axis_desc_style(font(16, INK)?)
            .set_tick_mark_size(LabelAreaPosition::Bottom, px(8))
            .y_label_offset(px(4))
            .y_labels(8)
            .y_label_formatter(&|value| NUMBERS.print(*value))
            .x_desc("epoch")
            .draw()?;
        for (name, colour, values) in &self.series {
            // Hollow and filled marks tell curves apart without their colours.
            let style = ShapeStyle {
                color: colour.to_rgba(),
                filled: *name != "training",
                stroke_width: 2 * SCALE + 1,
            };
            let points: Vec<_> = (epochs.iter().zip(values))
                .map(|(point, value)| (point.epoch, *value))
                .collect();
            // The empty one carries the label, whatever the values are.
            chart
                .draw_series(LineSeries::new([], style))?
                .label(*name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y - px(8)), (x + px(22), y - px(8))], style)
                });
            for run in points.split(|(_, value)| !is_drawn(*value)) {
                let marked = run.len() == 1 || points.len() <= MARKED_EPOCHS;
                let line = LineSeries::new(run.iter().copied(), style);
                chart.draw_series(line.point_size(if marked { 4 * SCALE } else { 0 }))?;
            }
        }
        let best = best.zip(self.series.last());
        let best = best.map(|(at, (_, _, values))| (epochs[at].epoch, values[at]));
        if let Some((epoch, value)) = best.filter(|(_, value)| is_drawn(*value)) {
            let ends = [self.y_range.start, self.y_range.end].map(|y| (epoch, y));
            let dashes = GREY.stroke_width(SCALE);
            chart.draw_series(DashedLineSeries::new(ends, 5 * SCALE, 4 * SCALE, dashes))?;
            let ring = INK.stroke_width(2 * SCALE);
            let label = format!("best epoch {epoch}: {}", NUMBERS.print(value));
            chart
                .draw_series([Circle::new((epoch, value), px(8), ring)])?
                .label(label)
                .legend(move |(x, y)| Circle::new((x + px(11), y - px(8)), px(7), ring));
        }
        chart
            .configure_series_labels()
            .position(self.legend.clone())
            .margin(px(12))
            .legend_area_size(px(28))
            .background_style(PAPER.mix(0.85))
            .border_style(FAINT)
            .label_font(font(16, INK)?)
            .draw()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
