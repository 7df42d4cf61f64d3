//! How much of one model is held in memory.

/// Most files that a source lists for one model, and most of one model. A bound on memory, not a recommendation: models
/// have some hundreds. Directories count as well where a source tells them.
pub const MAX_ENTRIES: usize = 100_000;
/// Most bytes of their names together.
const MAX_NAMES: usize = 16 << 20;

/// What is said of a model that has more.
pub(crate) const TOO_MANY: &str = "has more than 100,000 files, or more than 16 MiB of names";

/// Counts the files of a model while they are listed or unpacked.
#[derive(Debug, Default)]
pub(crate) struct Count {
    entries: usize,
    names: usize,
}

impl Count {
    /// Counts one more. When that is too much, the answer is `false`: see [`TOO_MANY`].
    pub(crate) fn add(&mut self, name: &str) -> bool {
        self.entries += 1;
        self.names = self.names.saturating_add(name.len());
        self.entries <= MAX_ENTRIES && self.names <= MAX_NAMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_and_long_ones_are_too_many() {
        let most = |name: &str| {
            let mut count = Count::default();
            (0..).take_while(|_| count.add(name)).count()
        };
        assert_eq!(most("m"), 100_000);
        assert_eq!(most(&"m".repeat(1 << 10)), 16 << 10);
    }
}
