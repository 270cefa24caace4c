//! What can happen to a file, as a set.

use std::{
    fmt,
    ops::{BitAnd, BitOr, BitOrAssign, Sub},
};

/// Things that happen to files, as the kernel's bits.
///
/// Notices about one object that wait to be read become one, with the bits of all: the order among them is lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mask(u64);

const NAMES: &[(Mask, &str)] = &[
    (Mask::MODIFY, "MODIFY"),
    (Mask::ATTRIB, "ATTRIB"),
    (Mask::CLOSE_WRITE, "CLOSE_WRITE"),
    (Mask::CLOSE_NOWRITE, "CLOSE_NOWRITE"),
    (Mask::OPEN, "OPEN"),
    (Mask::OPEN_EXEC, "OPEN_EXEC"),
    (Mask::MOVED_FROM, "MOVED_FROM"),
    (Mask::MOVED_TO, "MOVED_TO"),
    (Mask::CREATE, "CREATE"),
    (Mask::DELETE, "DELETE"),
    (Mask::DELETE_SELF, "DELETE_SELF"),
    (Mask::MOVE_SELF, "MOVE_SELF"),
    (Mask::RENAME, "RENAME"),
    (Mask::ON_DIR, "ON_DIR"),
];

// === impl Mask ===

impl Mask {
    /// Nothing.
    pub const EMPTY: Self = Self(0);
    /// Opened, to be executed or not.
    pub const OPEN: Self = Self(libc::FAN_OPEN);
    /// Opened to be executed, besides [`Self::OPEN`].
    pub const OPEN_EXEC: Self = Self(libc::FAN_OPEN_EXEC);
    /// Written or truncated. A write to a mapping is not told.
    pub const MODIFY: Self = Self(libc::FAN_MODIFY);
    /// Closed, and was open for writing.
    pub const CLOSE_WRITE: Self = Self(libc::FAN_CLOSE_WRITE);
    /// Closed, and was not open for writing.
    pub const CLOSE_NOWRITE: Self = Self(libc::FAN_CLOSE_NOWRITE);
    /// Mode, owner, times, extended attributes or number of links changed.
    pub const ATTRIB: Self = Self(libc::FAN_ATTRIB);
    /// A name was made in a directory: of a new file or directory, or one more of a file.
    pub const CREATE: Self = Self(libc::FAN_CREATE);
    /// A name was removed from a directory.
    pub const DELETE: Self = Self(libc::FAN_DELETE);
    /// A name was changed, from or to a directory. Where the kernel does not know it (see
    /// [`Features::rename`](super::Features::rename)) [`Self::MOVED_FROM`] and [`Self::MOVED_TO`] stand in for it.
    pub const RENAME: Self = Self(libc::FAN_RENAME);
    /// A name was moved out of a directory, or got another in it.
    pub const MOVED_FROM: Self = Self(libc::FAN_MOVED_FROM);
    /// A name was moved into a directory, or had another in it.
    pub const MOVED_TO: Self = Self(libc::FAN_MOVED_TO);
    /// What is marked was deleted: no name is left, and nobody has it open.
    pub const DELETE_SELF: Self = Self(libc::FAN_DELETE_SELF);
    /// What is marked was moved.
    pub const MOVE_SELF: Self = Self(libc::FAN_MOVE_SELF);
    /// It happened to a directory. Only told, never asked for.
    pub const ON_DIR: Self = Self(libc::FAN_ONDIR);

    /// What happens to names in a directory; a file cannot have it in its mark.
    const NAMES_IN_DIR: Self =
        Self(Self::CREATE.0 | Self::DELETE.0 | Self::RENAME.0 | Self::MOVED_FROM.0 | Self::MOVED_TO.0);
    /// All that can be asked for.
    const EVENTS: Self = Self(
        Self::OPEN.0
            | Self::OPEN_EXEC.0
            | Self::MODIFY.0
            | Self::CLOSE_WRITE.0
            | Self::CLOSE_NOWRITE.0
            | Self::ATTRIB.0
            | Self::NAMES_IN_DIR.0
            | Self::DELETE_SELF.0
            | Self::MOVE_SELF.0,
    );
    /// For a mark on a directory: its children's events too, and those of directories.
    const DIR_FLAGS: u64 = libc::FAN_EVENT_ON_CHILD | libc::FAN_ONDIR;

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in it.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The kernel's bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// As the kernel tells them. Bits without a name here are kept.
    pub(super) const fn told(bits: u64) -> Self {
        Self(bits)
    }

    /// All that a kernel can be asked for.
    pub(super) fn every(rename: bool) -> Self {
        if rename { Self::EVENTS } else { Self::EVENTS - Self::RENAME }
    }

    /// What is asked of a kernel that may not know [`Self::RENAME`].
    pub(super) fn known(self, rename: bool) -> Self {
        let events = self & Self::EVENTS;
        if rename || !events.intersects(Self::RENAME) {
            return events;
        }
        (events - Self::RENAME) | Self::MOVED_FROM | Self::MOVED_TO
    }

    /// Bits for a mark on a directory.
    pub(super) const fn of_directory(self) -> u64 {
        self.0 | Self::DIR_FLAGS
    }

    /// The part of it that a mark on a file can have.
    pub(super) fn of_file(self) -> Self {
        self - Self::NAMES_IN_DIR
    }
}

impl BitOr for Mask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Mask {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Mask {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Mask {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut separator = "";
        for &(one, name) in NAMES.iter().filter(|(one, _)| self.contains(*one)) {
            write!(f, "{separator}{name}")?;
            separator = "|";
            rest = rest - one;
        }
        if !rest.is_empty() || separator.is_empty() {
            write!(f, "{separator}{:#x}", rest.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rename_becomes_both_halves_where_the_kernel_does_not_know_it() {
        let asked = Mask::RENAME | Mask::OPEN;
        assert_eq!(asked.known(true), asked);
        assert_eq!(asked.known(false), Mask::OPEN | Mask::MOVED_FROM | Mask::MOVED_TO);
        assert_eq!(Mask::OPEN.known(false), Mask::OPEN);
        assert!(!Mask::every(false).intersects(Mask::RENAME));
    }

    #[test]
    fn what_can_only_be_told_is_not_asked_for() {
        assert_eq!((Mask::OPEN | Mask::ON_DIR).known(true), Mask::OPEN);
    }

    #[test]
    fn a_mask_is_shown_by_names_and_the_rest_as_a_number() {
        for (mask, shown) in [
            (Mask::EMPTY, "0x0"),
            (Mask::OPEN, "OPEN"),
            (Mask::CREATE | Mask::ON_DIR, "CREATE|ON_DIR"),
            (Mask::told(1), "0x1"),
            (Mask::told(1) | Mask::MODIFY, "MODIFY|0x1"),
        ] {
            assert_eq!(format!("{mask:?}"), shown);
        }
    }
}
