//! The result of a run depends on its settings and its seed, and not on the number of workers.

use integration_tests::Run;

fn largest_difference(a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .flat_map(|((name_a, a), (name_b, b))| {
            assert_eq!(name_a, name_b);
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).map(|(a, b)| (a - b).abs())
        })
        .fold(0.0, f32::max)
}

#[test]
fn one_two_and_three_workers_give_the_same_curve_and_weights() {
    // Two epochs of six steps; 16 samples do not divide by 3 ranks. The learning rate is small,
    // because the first steps of Adam amplify rounding errors, and weights are compared.
    let arguments = &["--epochs=2", "--layer-lr=uniform=1e-5", "--seed=7"];
    let alone = Run::small(1, arguments).wait().succeeded();
    assert_eq!(alone.epochs().len(), 2);
    for workers in [2, 3] {
        let together = Run::small(workers, arguments).wait().succeeded();
        for key in ["train_loss", "validation_loss"] {
            for (a, b) in alone.column(key).iter().zip(together.column(key)) {
                assert!(
                    (a - b).abs() < 1e-4,
                    "{key} with {workers} workers: {a} and {b}"
                );
            }
        }
        let difference = largest_difference(&alone.weights(), &together.weights());
        assert!(
            difference < 1e-4,
            "weights differ by {difference} with {workers} workers"
        );
    }
}

#[test]
fn one_seed_gives_one_curve_and_another_seed_another() {
    let curve = |seed: &str| {
        let ended = Run::small(2, &["--epochs=2", seed]).wait().succeeded();
        (ended.column("train_loss"), ended.column("validation_loss"))
    };
    let first = curve("--seed=1");
    assert_eq!(first, curve("--seed=1"));
    assert_ne!(first, curve("--seed=2"));
}

#[test]
fn validation_is_the_same_for_any_number_of_workers() {
    // With learning rates below the resolution of floats, all runs validate the same weights.
    let validated = |workers: usize| {
        let arguments = &[
            "--epochs=1",
            "--layer-lr=uniform=1e-30",
            "--global-batch=64",
        ];
        let ended = Run::small(workers, arguments).wait().succeeded();
        (
            ended.column("validation_loss"),
            ended.column("validation_accuracy"),
        )
    };
    let alone = validated(1);
    for workers in [3, 7] {
        assert_eq!(validated(workers), alone, "{workers} workers");
    }
}
