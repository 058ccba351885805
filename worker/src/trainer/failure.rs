//! Errors of libraries as errors of the training thread.

use std::any::Any;
use std::fmt::Display;

use worker_control::TrainError;

/// The data folder cannot be used.
pub(super) fn data_failure(error: impl Display) -> TrainError {
    TrainError::Data(error.to_string())
}

/// The pretrained weights cannot be used.
pub(super) fn weights_failure(error: impl Display) -> TrainError {
    TrainError::Weights(error.to_string())
}

/// The GPU cannot be used.
pub(super) fn device(error: impl Display) -> TrainError {
    TrainError::Device(first_line(error))
}

/// A library is missing, or there is too little memory.
pub(super) fn environment(error: impl Display) -> TrainError {
    TrainError::Environment(error.to_string())
}

/// A collective broke.
pub(super) fn collective(error: impl Display) -> TrainError {
    let text = first_line(error);
    out_of_memory(&text).unwrap_or(TrainError::Collective(text))
}

/// Anything else.
pub(super) fn internal(error: impl Display) -> TrainError {
    let text = first_line(error);
    out_of_memory(&text).unwrap_or(TrainError::Internal(text))
}

/// A panic of the training thread: `tch` passes errors of libtorch on as panics.
pub(super) fn panicked(payload: &(dyn Any + Send)) -> TrainError {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("the training thread panicked");
    // `unwrap` writes the error as Rust would: behind its type, with escaped ends of lines.
    let message = text
        .split_once("Torch(\"")
        .map_or(text, |(_, message)| message);
    internal(message.split("\\n").next().unwrap_or(message))
}

/// Every worker would run out of it again: the run's settings ask for too much.
fn out_of_memory(text: &str) -> Option<TrainError> {
    let words = [
        "out of memory",
        "not enough memory",
        "can't allocate memory",
    ];
    words.iter().any(|words| text.contains(words)).then(|| {
        environment(format!(
            "out of memory: a smaller --global-batch, or more workers, need less of each ({text})"
        ))
    })
}

/// libtorch's messages end in a C++ stack trace, which does not help a user.
pub(super) fn first_line(error: impl Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_is_named_wherever_it_happens() {
        let said =
            "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to";
        for error in [collective(said), internal(said), panicked(&said.to_owned())] {
            let TrainError::Environment(words) = error else {
                panic!("{error:?}");
            };
            assert!(words.starts_with("out of memory: a smaller --global-batch"));
        }
        let traced = "called `Result::unwrap()`: Torch(\"no kernel\\nException raised from\")";
        assert!(matches!(panicked(&traced), TrainError::Internal(words) if words == "no kernel"));
        assert!(matches!(panicked(&"a bug"), TrainError::Internal(words) if words == "a bug"));
    }
}
