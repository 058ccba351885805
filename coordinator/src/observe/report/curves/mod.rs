//! The curves of a run: losses and accuracy over the epochs, with the best epoch marked.
//!
//! Owns the layout of `curves.png`. Must not decide which epoch is best or why the run stopped. The
//! legend stands above each plot, so that it can never cover a curve.

use super::canvas::{
    Align, BLUE, Canvas, FAINT, GREEN, GREY, INK, Marker, PAPER, Point, Type, VERMILION,
};
use super::error::ReportError;
use super::font;
use axis::Axis;
use coordinator_core::event::FinishedEpoch;
use plotters::style::RGBColor;

mod axis;
#[cfg(test)]
mod tests;

const WIDTH: u32 = 1360;
const HEIGHT: u32 = 600;
const MARGIN: f64 = 36.0;
const GAP: f64 = 44.0;
/// Room for the numbers left of a plot.
const NUMBERS: f64 = 52.0;
const PLOT_TOP: f64 = 176.0;
const PLOT_BOTTOM: f64 = HEIGHT as f64 - 70.0;
/// Up to this many epochs each one gets its mark; beyond it marks would merge into a band.
const MARKED_EPOCHS: usize = 40;

const TITLE: Type = Type {
    size: 27.0,
    colour: INK,
    strong: true,
};
const HEADING: Type = Type {
    size: 19.0,
    colour: INK,
    strong: true,
};
const SMALL: Type = Type {
    size: 16.0,
    colour: GREY,
    strong: false,
};

/// One curve.
struct Series {
    name: &'static str,
    colour: RGBColor,
    marker: Marker,
    /// (epoch, value) in the order of the run.
    points: Vec<(u32, f64)>,
}

/// One plot with everything around it.
struct Panel {
    heading: &'static str,
    series: Vec<Series>,
    /// The series on which the best epoch is ringed.
    judged: usize,
    value: fn(f64) -> String,
    axis: Axis,
}

/// Draws the losses and the accuracy of `epochs` side by side as one RGB PNG, with `stop`, the
/// reason why the run ended, in the title. A value that is not finite leaves a gap in its curve. `best_epoch` is marked where it is one of `epochs`.
///
/// # Errors
/// [`ReportError::NoEpochs`] if `epochs` is empty.
pub fn render(
    epochs: &[FinishedEpoch],
    best_epoch: Option<u32>,
    stop: &str,
) -> Result<Vec<u8>, ReportError> {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    let numbers = epochs.iter().map(|point| point.epoch);
    let (Some(first), Some(last)) = (numbers.clone().min(), numbers.max()) else {
        return Err(ReportError::NoEpochs);
    };
    let x = Axis::epochs(first, last);
    title(&mut canvas, epochs, best_epoch, stop)?;
    let width = (f64::from(WIDTH) - 2.0 * MARGIN - GAP) / 2.0;
    for (panel, left) in [losses(epochs), accuracy(epochs)]
        .iter()
        .zip([MARGIN, MARGIN + width + GAP])
    {
        panel.draw(&mut canvas, &x, left, width, best_epoch)?;
    }
    canvas.png()
}

fn series(
    name: &'static str,
    (colour, marker): (RGBColor, Marker),
    epochs: &[FinishedEpoch],
    value: impl Fn(&FinishedEpoch) -> f64,
) -> Series {
    let points = epochs
        .iter()
        .map(|point| (point.epoch, value(point)))
        .collect();
    Series {
        name,
        colour,
        marker,
        points,
    }
}

fn losses(epochs: &[FinishedEpoch]) -> Panel {
    let series = vec![
        series("training", (BLUE, Marker::Disc), epochs, |point| {
            point.train_loss
        }),
        series("validation", (VERMILION, Marker::Square), epochs, |point| {
            point.validation_loss
        }),
    ];
    let axis = Axis::losses(finite(&series));
    let value = |loss| format!("{loss:.3}");
    Panel {
        heading: "Loss (mean cross entropy, nats)",
        series,
        judged: 1,
        value,
        axis,
    }
}

fn accuracy(epochs: &[FinishedEpoch]) -> Panel {
    let percent = |point: &FinishedEpoch| 100.0 * point.validation_accuracy;
    let series = vec![series(
        "validation",
        (GREEN, Marker::Square),
        epochs,
        percent,
    )];
    let axis = Axis::percent(finite(&series));
    let value = |percent| format!("{percent:.1} %");
    Panel {
        heading: "Accuracy (% of validation images)",
        series,
        judged: 0,
        value,
        axis,
    }
}

fn finite(series: &[Series]) -> impl Iterator<Item = f64> + Clone + '_ {
    series
        .iter()
        .flat_map(|s| &s.points)
        .map(|&(_, value)| value)
        .filter(|v| v.is_finite())
}

fn title(
    canvas: &mut Canvas,
    epochs: &[FinishedEpoch],
    best_epoch: Option<u32>,
    stop: &str,
) -> Result<(), ReportError> {
    let room = f64::from(WIDTH) - 2.0 * MARGIN;
    let count = epochs.len();
    let plural = if count == 1 { "" } else { "s" };
    let line = font::fit(
        &format!("{count} epoch{plural}, stopped: {stop}"),
        TITLE.size,
        room,
    )?;
    canvas.text(&line, (MARGIN, MARGIN + 16.0), Align::Left, TITLE)?;
    let best = best_epoch.and_then(|best| epochs.iter().find(|point| point.epoch == best));
    let line = match best {
        Some(best) => format!(
            "best epoch {}: validation loss {:.4}, {:.1} % of validation images right",
            best.epoch,
            best.validation_loss,
            100.0 * best.validation_accuracy
        ),
        None => "no best epoch".to_owned(),
    };
    canvas.text(
        &line,
        (MARGIN, MARGIN + 44.0),
        Align::Left,
        Type {
            size: 18.0,
            ..SMALL
        },
    )
}

impl Panel {
    fn draw(
        &self,
        canvas: &mut Canvas,
        x: &Axis,
        left: f64,
        width: f64,
        best_epoch: Option<u32>,
    ) -> Result<(), ReportError> {
        let (plot_left, right) = (left + NUMBERS, left + width);
        canvas.text(self.heading, (left, PLOT_TOP - 50.0), Align::Left, HEADING)?;
        for tick in self.axis.ticks() {
            let y = self.axis.place(tick, PLOT_BOTTOM, PLOT_TOP);
            canvas.line((plot_left, y), (right, y), 1.0, FAINT)?;
            let at = (plot_left - 10.0, y + 5.0);
            canvas.text(&self.axis.label(tick), at, Align::Right, SMALL)?;
        }
        canvas.line((plot_left, PLOT_BOTTOM), (right, PLOT_BOTTOM), 1.0, GREY)?;
        for tick in x.ticks() {
            let at = x.place(tick, plot_left, right);
            canvas.line((at, PLOT_BOTTOM), (at, PLOT_BOTTOM + 5.0), 1.0, GREY)?;
            canvas.text(
                &x.label(tick),
                (at, PLOT_BOTTOM + 22.0),
                Align::Centre,
                SMALL,
            )?;
        }
        let middle = f64::midpoint(plot_left, right);
        canvas.text("epoch", (middle, PLOT_BOTTOM + 46.0), Align::Centre, SMALL)?;

        let place = |(epoch, value): (u32, f64)| {
            let across = x.place(f64::from(epoch), plot_left, right);
            (across, self.axis.place(value, PLOT_BOTTOM, PLOT_TOP))
        };
        let best = self.best(best_epoch);
        if let Some(best) = best {
            let (at, _) = place(best);
            canvas.dashes((at, PLOT_TOP), (at, PLOT_BOTTOM), 1.2, GREY)?;
        }
        if finite(&self.series).next().is_none() {
            let at = (middle, f64::midpoint(PLOT_TOP, PLOT_BOTTOM));
            canvas.text("no finite value", at, Align::Centre, HEADING)?;
        }
        for series in &self.series {
            series.draw(canvas, &place)?;
        }
        if let Some(best) = best {
            let judged = &self.series[self.judged];
            ring(canvas, place(best), judged.colour)?;
        }
        self.legend(canvas, left, best)
    }

    /// The best epoch's point, if it is there and finite.
    fn best(&self, best_epoch: Option<u32>) -> Option<(u32, f64)> {
        let points = &self.series[self.judged].points;
        points
            .iter()
            .copied()
            .find(|&(epoch, value)| Some(epoch) == best_epoch && value.is_finite())
    }

    fn legend(
        &self,
        canvas: &mut Canvas,
        left: f64,
        best: Option<(u32, f64)>,
    ) -> Result<(), ReportError> {
        let (mut x, y) = (left, PLOT_TOP - 26.0);
        for series in &self.series {
            canvas.line((x + 1.0, y - 5.0), (x + 25.0, y - 5.0), 2.4, series.colour)?;
            canvas.marker(series.marker, (x + 13.0, y - 5.0), 4.2, series.colour)?;
            canvas.text(series.name, (x + 33.0, y), Align::Left, SMALL)?;
            x += 33.0 + font::width(series.name, SMALL.size)? + 26.0;
        }
        if let Some((epoch, value)) = best {
            ring(canvas, (x + 8.0, y - 5.0), self.series[self.judged].colour)?;
            let label = format!("best epoch {epoch}: {}", (self.value)(value));
            canvas.text(&label, (x + 24.0, y), Align::Left, SMALL)?;
        }
        Ok(())
    }
}

impl Series {
    fn draw(
        &self,
        canvas: &mut Canvas,
        place: &impl Fn((u32, f64)) -> Point,
    ) -> Result<(), ReportError> {
        for pair in self.points.windows(2) {
            if pair.iter().all(|(_, value)| value.is_finite()) {
                canvas.line(place(pair[0]), place(pair[1]), 2.4, self.colour)?;
            }
        }
        let neighbour = |i: Option<usize>| {
            i.and_then(|i| self.points.get(i))
                .is_some_and(|(_, value)| value.is_finite())
        };
        for (i, &point) in self
            .points
            .iter()
            .enumerate()
            .filter(|(_, (_, v))| v.is_finite())
        {
            // A point between two gaps has no line: without its mark it would be lost.
            let alone = !neighbour(i.checked_sub(1)) && !neighbour(Some(i + 1));
            if alone || self.points.len() <= MARKED_EPOCHS {
                canvas.marker(self.marker, place(point), 4.2, self.colour)?;
            }
        }
        Ok(())
    }
}

/// The mark of the best epoch.
fn ring(canvas: &mut Canvas, at: Point, colour: RGBColor) -> Result<(), ReportError> {
    for (radius, colour) in [(8.5, INK), (6.5, PAPER), (4.2, colour)] {
        canvas.disc(at, radius, colour)?;
    }
    Ok(())
}
