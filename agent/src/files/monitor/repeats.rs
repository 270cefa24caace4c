//! Repeats, counted in the kernel.

use std::time::Instant;

use nightjar_abi::files::{FileSettings, FoldKey, Folded};
use tracing::warn;

use super::{Act, Actor, First, Monitor};

impl Monitor {
    /// Takes what was counted in the window before the one that ends now, and begins another.
    pub(super) fn turn_window(&mut self, now: Instant) {
        self.next_window = now + self.options.fold;
        self.turned = Instant::now();
        let settings = self.controls.settings();
        if settings.window == 0 {
            return;
        }
        // The window before the one in force has been at rest for its length; what it counted is complete.
        let parity = u32::try_from((settings.window + 1) & 1).unwrap_or_default();
        for (key, folded) in self.controls.take_folded(parity) {
            self.unfold(&key, folded);
        }
        self.folds.retain(|key, _| key.hook_and_window & 1 != parity);
        if let Err(error) = self.controls.set(FileSettings { window: settings.window + 1, ..settings }) {
            warn!("the kernel programs go on counting repeats: {error}");
        }
    }

    fn unfold(&mut self, key: &FoldKey, folded: Folded) {
        if folded.count == 0 {
            return;
        }
        match self.folds.remove(key) {
            Some(Some(first)) => {
                let First { info, kind, mut body, time } = *first;
                body.count = folded.count;
                self.acts.push(Act {
                    kind,
                    time,
                    last: Some(folded.last),
                    actor: Actor::Task(Box::new(info)),
                    body,
                });
            }
            // The first was no event, and so are they.
            Some(None) => {}
            // The first was lost, with all that says what these are.
            None => *self.lost.entry(("file_open", "first_lost")).or_default() += folded.count,
        }
    }
}
