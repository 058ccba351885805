//! Converts bytes to the network's input: 0–1, minus the ImageNet mean, divided by its deviation.

use tch::{Device, Kind, TchError, Tensor};

use super::DataError;

/// Mean of ImageNet's channels R, G, B in 0–1, as torchvision's models expect it:
/// <https://docs.pytorch.org/vision/stable/models.html>.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the same channels.
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Turns pixels into the numbers that torchvision's models expect.
#[derive(Debug)]
pub struct Normaliser {
    kind: Kind,
    /// Pixels of a row.
    width: i64,
    /// float32 `[3 * width]`: (x / 255 - mean) / deviation = x * scale + shift. Three numbers per
    /// row would be vectors of length three; a whole row of pixels fills the vector unit.
    scale: Tensor,
    shift: Tensor,
}

impl Normaliser {
    /// For images of `width` pixels, to tensors of `kind` on `device`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(width: i64, device: Device, kind: Kind) -> Result<Self, DataError> {
        let row = |value: fn(usize) -> f32| -> Result<Tensor, DataError> {
            let channels = [value(0), value(1), value(2)];
            Ok(Tensor::f_from_slice(&channels)?
                .f_repeat([width])?
                .f_to_device(device)?)
        };
        Ok(Self {
            kind,
            width,
            scale: row(|channel| 1.0 / (255.0 * DEVIATION[channel]))?,
            shift: row(|channel| -MEAN[channel] / DEVIATION[channel])?,
        })
    }

    /// Turns uint8 `[B, S, width, 3]` into normalised `[B, 3, S, width]`. The result is a view of
    /// rows of pixels, which is exactly what channels_last means, so no value is moved for it.
    ///
    /// # Errors
    /// When the device has no memory left or the tensor has another shape.
    pub fn apply(&self, batch: &Tensor) -> Result<Tensor, DataError> {
        let shape = batch.size();
        // Bytes travel to the device, not floats.
        let batch = batch.f_to_device(self.scale.device())?;
        let rows = batch.f_view([-1, self.width * 3])?;
        let rows = match self.scale.device() {
            Device::Cpu => self.step_by_step(&rows),
            _ => self.at_once(&rows),
        };
        Ok(rows?.f_view(shape.as_slice())?.f_permute([0, 3, 1, 2])?)
    }

    fn step_by_step(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        let mut rows = rows.f_to_kind(Kind::Float)?;
        let _ = rows.f_mul_(&self.scale)?.f_add_(&self.shift)?;
        // Rounded once, at the end, also for bfloat16.
        rows.f_to_kind(self.kind)
    }

    /// One kernel on a GPU, which casts what it reads and what it writes. On a CPU each cast is
    /// an operation of its own, and `step_by_step` makes fewer.
    fn at_once(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        let device = self.scale.device();
        let out = Tensor::f_empty(rows.size(), (self.kind, device))?;
        let _ = self.shift.f_addcmul_out(&out, rows, &self.scale)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_torchvisions_formula_and_is_channels_last() {
        let bytes: Vec<u8> = (0..2 * 4 * 4 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let batch = Tensor::from_slice(&bytes).view([2, 4, 4, 3]);
        let unit = batch.permute([0, 3, 1, 2]).to_kind(Kind::Double) / 255.0;
        let column = |values: [f32; 3]| {
            Tensor::from_slice(&values)
                .to_kind(Kind::Double)
                .view([1, 3, 1, 1])
        };
        let expected = (unit - column(MEAN)) / column(DEVIATION);

        for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::BFloat16, 0.008)] {
            let normaliser = Normaliser::new(4, Device::Cpu, kind).unwrap();
            let images = normaliser.apply(&batch).unwrap();
            assert_eq!((images.kind(), images.size()), (kind, vec![2, 3, 4, 4]));
            assert_eq!(images.stride(), [48, 1, 12, 3]);
            let again = normaliser.at_once(&batch.view([-1, 12])).unwrap();
            let apart = again.view([2, 4, 4, 3]).permute([0, 3, 1, 2]) - &images;
            assert!(apart.abs().max().double_value(&[]) <= tolerance);
            let off = (images.to_kind(Kind::Double) - &expected)
                .abs()
                .max()
                .double_value(&[]);
            assert!(off <= tolerance, "{kind:?} is off by {off}");
        }
        let none = batch.narrow(0, 0, 0);
        let normaliser = Normaliser::new(4, Device::Cpu, Kind::Float).unwrap();
        let none = normaliser.apply(&none).unwrap();
        assert_eq!(none.size(), [0, 3, 4, 4]);
    }
}
