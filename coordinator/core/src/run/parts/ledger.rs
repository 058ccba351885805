//! Which generation made which steps of the epoch under way.

use crate::event::Span;

/// The spans of the epoch under way, in the order of its steps.
#[derive(Debug, Default)]
pub(in crate::run) struct Ledger {
    spans: Vec<Span>,
}

impl Ledger {
    /// A generation continues from this step.
    pub(in crate::run) fn begin(&mut self, generation: u64, world_size: u32, at: u32) {
        self.spans.push(Span {
            generation,
            world_size,
            first: at,
            end: at,
        });
    }

    /// The generation has made all steps before `end`.
    pub(in crate::run) fn advance(&mut self, end: u32) {
        if let Some(span) = self.spans.last_mut() {
            span.end = end;
        }
    }

    /// The step after the last one that is known to be made.
    pub(in crate::run) fn end(&self) -> u32 {
        self.spans.last().map_or(0, |span| span.end)
    }

    /// Another epoch is under way.
    pub(in crate::run) fn clear(&mut self) {
        self.spans.clear();
    }

    /// The epoch continues from a state of which exactly the steps before `completed` are part.
    /// Those of which there was no report belong to `generation`, of unknown size.
    pub(in crate::run) fn rewind(&mut self, completed: u32, generation: u64) {
        self.spans.retain(|span| span.first < completed);
        if let Some(last) = self.spans.last_mut() {
            last.end = last.end.min(completed);
        }
        let covered = self.end();
        if covered < completed {
            self.spans.push(Span {
                generation,
                world_size: 0,
                first: covered,
                end: completed,
            });
        }
    }

    /// Whether the spans are all steps of the epoch, each once, in order.
    pub(in crate::run) fn is_whole(&self, steps: u32) -> bool {
        let end = self.spans.iter().try_fold(0, |at, span| {
            (span.first == at && span.end >= at).then_some(span.end)
        });
        end == Some(steps)
    }

    /// Its rows.
    pub(in crate::run) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Hands out the rows of a finished epoch.
    pub(in crate::run) fn take(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.spans)
    }
}
