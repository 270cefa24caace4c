//! Notices of the kernel about files and directories, by fanotify(7).
//!
//! A [`Group`] has marks on directories and files; what happens to them is read as [`Notice`]s. Those name a
//! directory by its [`Handle`] and a file by its name in it, so nothing is opened and nothing waits. A handle says
//! which object it is, not where: whoever marks a directory keeps `HashMap<Handle, _>` of what was marked.
//!
//! The group needs `CAP_SYS_ADMIN` when it is opened. After that marks need only the right to read what is marked
//! (`CAP_DAC_READ_SEARCH` will do), and reading needs nothing.
//!
//! What the kernel does with marks and handles (v6.12 of it): `do_fanotify_mark` and `copy_info_records_to_user` in
//! <https://github.com/torvalds/linux/blob/v6.12/fs/notify/fanotify/fanotify_user.c>, merging of notices in
//! `fanotify_should_merge` <https://github.com/torvalds/linux/blob/v6.12/fs/notify/fanotify/fanotify.c>.

mod group;
mod handle;
mod mask;
mod parse;
#[cfg(test)]
mod tests;

pub use group::{Buffer, Drained, FanotifyError, Features, Group, Queue};
pub use handle::{Handle, HandleRef};
pub use mask::Mask;
pub use parse::{DirEntry, Event, Notice};
