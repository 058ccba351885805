//! Whatever was committed, killed, damaged and discarded, in any order: `newest` gives the
//! newest valid checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Commit(Position, Vec<u8>),
    /// Killed, or refused by the file system, at a stage.
    Interrupted(Position, Vec<u8>, Stage, bool),
    /// To the checkpoint of that place among those on the disk.
    Damage(usize, Harm),
    Pointer(&'static str),
    Discard(Position),
    Resume,
}

#[derive(Debug, Clone)]
enum Harm {
    Cut(&'static str, usize),
    Flip(&'static str, usize, u8),
    Remove(&'static str),
}

fn position() -> impl Strategy<Value = Position> {
    (1..4_u32, 0..3_u32).prop_map(|(epoch, completed)| at(epoch, completed))
}

fn event() -> impl Strategy<Value = Event> {
    let state = || prop::collection::vec(any::<u8>(), 1..20);
    let file = || select(vec![STATE, MANIFEST]);
    let harm = prop_oneof![
        (file(), any::<usize>()).prop_map(|(file, keep)| Harm::Cut(file, keep)),
        (file(), any::<usize>(), 0..8_u8).prop_map(|(file, at, bit)| Harm::Flip(file, at, bit)),
        file().prop_map(Harm::Remove),
    ];
    let pointers = vec![
        "",
        "latest",
        "epoch-0002-step-00001",
        "epoch-0099-step-00001",
    ];
    prop_oneof![
        4 => (position(), state()).prop_map(|(at, state)| Event::Commit(at, state)),
        4 => (position(), state(), select(STAGES.to_vec()), any::<bool>())
            .prop_map(|(at, state, stage, killed)| Event::Interrupted(at, state, stage, killed)),
        3 => (any::<usize>(), harm).prop_map(|(at, harm)| Event::Damage(at, harm)),
        1 => select(pointers).prop_map(Event::Pointer),
        1 => position().prop_map(Event::Discard),
        2 => Just(Event::Resume),
    ]
}

/// What should be on the disk, known from the events alone but for what pruning removed.
struct World {
    checkpoints: Checkpoints,
    states: BTreeMap<Position, Vec<u8>>,
    damaged: BTreeSet<Position>,
}

impl World {
    fn apply(&mut self, event: Event) {
        let checkpoints = &self.checkpoints;
        match event {
            Event::Commit(position, state) => {
                commit(checkpoints, position, &state);
                assert!(checkpoints.path(position).exists(), "{position} is gone");
                self.counts(position, state);
            }
            Event::Interrupted(position, state, stage, killed) => {
                let reached = commit_until(stage, killed, (checkpoints, position, &state));
                let before = [Stage::State, Stage::Manifest, Stage::SetAside];
                if reached.is_none_or(|stage| !before.contains(&stage)) {
                    self.counts(position, state);
                }
            }
            Event::Damage(which, harm) => {
                let there = checkpoints.positions().unwrap();
                if let Some(position) = there.get(which % there.len().max(1))
                    // A second flip could undo the first.
                    && self.damaged.insert(*position)
                {
                    harm.apply(&checkpoints.path(*position));
                }
            }
            Event::Pointer(text) => {
                if checkpoints.folder.exists() {
                    std::fs::write(checkpoints.folder.join(LATEST), text).unwrap();
                }
            }
            Event::Discard(position) => {
                // As a run does: it looks first.
                self.resume();
                self.checkpoints.discard_after(position).unwrap();
                self.resume();
                assert!(self.whole().is_none_or(|whole| whole <= position));
            }
            Event::Resume => self.resume(),
        }
    }

    fn counts(&mut self, position: Position, state: Vec<u8>) {
        self.states.insert(position, state);
        self.damaged.remove(&position);
    }

    /// The newest undamaged one, by the names on the disk.
    fn whole(&self) -> Option<Position> {
        if !self.checkpoints.folder.exists() {
            return None;
        }
        names(&self.checkpoints.folder)
            .iter()
            .filter_map(|name| position::parse(name.strip_prefix(".replaced-").unwrap_or(name)))
            .filter(|position| !self.damaged.contains(position))
            .max()
    }

    fn resume(&self) {
        let expected = self.whole().map(|at| (at, self.states[&at].clone()));
        let used = expected.as_ref().map(|(at, _)| *at);
        let (found, lines) = newest(&self.checkpoints);
        assert_eq!(found, expected, "{lines:?}");
        let corrupt = self.checkpoints.positions().unwrap();
        let corrupt = corrupt.iter().filter(|at| Some(**at) > used);
        for name in corrupt.map(|at| position::name(*at)) {
            let begin = format!("checkpoint {name} is corrupt: ");
            assert!(lines.iter().any(|line| line.starts_with(&begin)), "{name}");
        }
        if self.checkpoints.folder.exists() {
            let litter = names(&self.checkpoints.folder);
            assert!(
                !litter.iter().any(|name| name.starts_with('.')),
                "{litter:?}"
            );
        }
    }
}

impl Harm {
    fn apply(&self, directory: &Path) {
        let (Self::Cut(file, _) | Self::Flip(file, ..) | Self::Remove(file)) = self;
        let path = directory.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        match self {
            // A manifest is the same without the line end, so more than that has to go.
            Self::Cut(_, keep) => {
                bytes.truncate(keep % (bytes.len() - usize::from(*file == MANIFEST)));
            }
            Self::Flip(_, at, bit) => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            Self::Remove(_) => return std::fs::remove_file(path).unwrap(),
        }
        std::fs::write(path, bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn newest_is_the_newest_that_is_whole(events in prop::collection::vec(event(), 1..16)) {
        let (_run, checkpoints) = new_checkpoints();
        let mut world = World {
            checkpoints,
            states: BTreeMap::new(),
            damaged: BTreeSet::new(),
        };
        for event in events {
            world.apply(event);
        }
        world.resume();
    }
}
