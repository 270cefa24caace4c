//! From the bytes that are read to notices.
//!
//! One event is `struct fanotify_event_metadata` and records with a type and a length each
//! <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/fanotify.h>. All is in the byte order of the
//! machine, and the lengths say where the next begins. Nothing is believed: lengths that do not fit are counted.

use super::{HandleRef, Mask};

const METADATA_LEN: usize = 24;
const RECORD_HEAD: usize = 4;
/// The name by which the kernel tells of the directory itself.
const ITSELF: &[u8] = b".";

/// What the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The queue was full, and what happened until now was lost in part.
    Overflow,
    /// Something happened.
    Event(Event<'a>),
}

/// Something that happened to a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What: one thing, or several that were not read in between.
    pub mask: Mask,
    /// The process that did it, as the reader's PID namespace numbers it: 0 where it has none there.
    pub pid: i32,
    /// Where. None where it has no place: for [`Mask::DELETE_SELF`] of a file, and for [`Mask::RENAME`].
    pub dir: Option<DirEntry<'a>>,
    /// What it happened to. None where the kernel does not tell it apart from `dir`: of the directory itself, and,
    /// without [`Features::target_fid`](super::Features::target_fid), of names made, removed and moved.
    pub target: Option<HandleRef<'a>>,
    /// For [`Mask::RENAME`] where it was, if that directory is marked for it.
    pub old: Option<DirEntry<'a>>,
    /// For [`Mask::RENAME`] where it is now, if that directory is marked for it.
    pub new: Option<DirEntry<'a>>,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The directory.
    pub dir: HandleRef<'a>,
    /// The name in it; `.` is the directory itself. Any bytes but NUL and `/`.
    pub name: &'a [u8],
}

/// Another version of the format than this can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnknownVersion(pub(super) u8);

/// Gives what is in `bytes`; the number of events that could not be read.
pub(super) fn parse<'a>(bytes: &'a [u8], mut take: impl FnMut(Notice<'a>)) -> Result<u64, UnknownVersion> {
    let mut rest = bytes;
    let mut malformed = 0;
    while !rest.is_empty() {
        let Some((metadata, records, next)) = split_event(rest)? else {
            // Where the next one begins is not known either.
            return Ok(malformed + 1);
        };
        rest = next;
        match Notice::read(metadata, records) {
            Some(notice) => take(notice),
            None => malformed += 1,
        }
    }
    Ok(malformed)
}

type Split<'a> = (&'a [u8; METADATA_LEN], &'a [u8], &'a [u8]);

/// The first event's metadata and records, and what is behind it.
fn split_event(bytes: &[u8]) -> Result<Option<Split<'_>>, UnknownVersion> {
    let Some(metadata) = bytes.first_chunk::<METADATA_LEN>() else { return Ok(None) };
    if metadata[4] != libc::FANOTIFY_METADATA_VERSION {
        return Err(UnknownVersion(metadata[4]));
    }
    let event_len = u32::from_ne_bytes([metadata[0], metadata[1], metadata[2], metadata[3]]);
    let event_len = usize::try_from(event_len).unwrap_or(usize::MAX);
    let metadata_len = usize::from(u16::from_ne_bytes([metadata[6], metadata[7]]));
    if metadata_len < METADATA_LEN {
        return Ok(None);
    }
    Ok(bytes.split_at_checked(event_len).and_then(|(event, next)| {
        let records = event.get(metadata_len..)?;
        Some((metadata, records, next))
    }))
}

// === impl Notice ===

impl<'a> Notice<'a> {
    fn read(metadata: &[u8; METADATA_LEN], records: &'a [u8]) -> Option<Self> {
        let mask = u64::from_ne_bytes(*metadata[8..].first_chunk()?);
        if mask & libc::FAN_Q_OVERFLOW != 0 {
            return Some(Self::Overflow);
        }
        let pid = i32::from_ne_bytes(*metadata[20..].first_chunk()?);
        Event::read(Mask::told(mask), pid, records).map(Self::Event)
    }
}

// === impl Event ===

impl<'a> Event<'a> {
    fn read(mask: Mask, pid: i32, mut records: &'a [u8]) -> Option<Self> {
        let mut event = Self { mask, pid, dir: None, target: None, old: None, new: None };
        while !records.is_empty() {
            let &[kind, _, low, high] = records.first_chunk::<RECORD_HEAD>()?;
            let (record, next) = records.split_at_checked(usize::from(u16::from_ne_bytes([low, high])))?;
            event.take_record(kind, record.get(RECORD_HEAD..)?)?;
            records = next;
        }
        Some(event)
    }

    fn take_record(&mut self, kind: u8, record: &'a [u8]) -> Option<()> {
        match kind {
            libc::FAN_EVENT_INFO_TYPE_FID => self.target = Some(HandleRef::split_from(record)?.0),
            libc::FAN_EVENT_INFO_TYPE_DFID => {
                self.dir = Some(DirEntry { dir: HandleRef::split_from(record)?.0, name: ITSELF });
            }
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => self.dir = Some(DirEntry::read(record)?),
            libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => self.old = Some(DirEntry::read(record)?),
            libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => self.new = Some(DirEntry::read(record)?),
            // A later kernel may tell more.
            _ => {}
        }
        Some(())
    }
}

// === impl DirEntry ===

impl<'a> DirEntry<'a> {
    fn read(record: &'a [u8]) -> Option<Self> {
        let (dir, name) = HandleRef::split_from(record)?;
        let end = name.iter().position(|byte| *byte == 0).filter(|end| *end > 0)?;
        Some(Self { dir, name: &name[..end] })
    }

    /// Whether it is not about a name in the directory, but the directory.
    #[must_use]
    pub fn is_itself(&self) -> bool {
        self.name == ITSELF
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FID: u8 = libc::FAN_EVENT_INFO_TYPE_FID;
    const DFID: u8 = libc::FAN_EVENT_INFO_TYPE_DFID;
    const DFID_NAME: u8 = libc::FAN_EVENT_INFO_TYPE_DFID_NAME;
    const OLD: u8 = libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME;
    const NEW: u8 = libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME;

    /// What the kernel writes of a handle: eight bytes that are all `id`.
    fn handle(id: u8) -> Vec<u8> {
        let mut bytes = vec![0xf5; 8];
        bytes.extend(8_u32.to_ne_bytes());
        bytes.extend(1_i32.to_ne_bytes());
        bytes.extend([id; 8]);
        bytes
    }

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = (RECORD_HEAD + body.len()).next_multiple_of(4);
        let [low, high] = u16::try_from(len).unwrap().to_ne_bytes();
        let mut bytes = [&[kind, 0, low, high], body].concat();
        bytes.resize(len, 0);
        bytes
    }

    fn named(kind: u8, id: u8, name: &[u8]) -> Vec<u8> {
        record(kind, &[&handle(id), name, &[0]].concat())
    }

    fn event(mask: Mask, records: &[Vec<u8>]) -> Vec<u8> {
        let records = records.concat();
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(METADATA_LEN + records.len()).unwrap().to_ne_bytes());
        bytes.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend(24_u16.to_ne_bytes());
        bytes.extend(mask.bits().to_ne_bytes());
        bytes.extend(libc::FAN_NOFD.to_ne_bytes());
        bytes.extend(77_i32.to_ne_bytes());
        [bytes, records].concat()
    }

    fn created(id: u8, name: &str) -> Vec<u8> {
        event(Mask::CREATE, &[named(DFID_NAME, id, name.as_bytes()), record(FID, &handle(9))])
    }

    /// Names of the events' directory entries, and the number of events that could not be read.
    fn names(bytes: &[u8]) -> (Vec<String>, u64) {
        let mut names = Vec::new();
        let malformed = parse(bytes, |notice| {
            let Notice::Event(Event { dir: Some(DirEntry { name, .. }), .. }) = notice else {
                panic!("{notice:?}")
            };
            names.push(String::from_utf8(name.to_vec()).unwrap());
        });
        (names, malformed.unwrap())
    }

    #[test]
    fn all_that_a_rename_tells_is_given() {
        let records = [named(OLD, 1, b"from"), named(NEW, 2, b"to"), record(FID, &handle(3))];
        let bytes = event(Mask::RENAME, &records);
        let [one, two, three] = [handle(1), handle(2), handle(3)];
        let of = |bytes| HandleRef::split_from(bytes).unwrap().0;
        let mut told = 0;
        let malformed = parse(&bytes, |notice| {
            told += 1;
            let expected = Event {
                mask: Mask::RENAME,
                pid: 77,
                dir: None,
                target: Some(of(&three)),
                old: Some(DirEntry { dir: of(&one), name: b"from" }),
                new: Some(DirEntry { dir: of(&two), name: b"to" }),
            };
            assert_eq!(notice, Notice::Event(expected));
        });
        assert_eq!((told, malformed), (1, Ok(0)));
    }

    #[test]
    fn events_come_one_after_the_other() {
        let bytes = [created(1, "a"), created(1, "bb"), created(1, "ccc")].concat();
        assert_eq!(names(&bytes), (["a", "bb", "ccc"].map(String::from).to_vec(), 0));
        assert_eq!(names(&[]), (vec![], 0));
    }

    #[test]
    fn a_directory_without_a_name_is_itself() {
        let bytes = event(Mask::ATTRIB | Mask::ON_DIR, &[record(DFID, &handle(1))]);
        assert_eq!(names(&bytes), (vec![".".to_owned()], 0));
    }

    #[test]
    fn an_overflow_is_no_event() {
        let bytes = event(Mask::told(libc::FAN_Q_OVERFLOW), &[]);
        let mut overflows = 0;
        let malformed = parse(&bytes, |notice| overflows += i32::from(notice == Notice::Overflow));
        assert_eq!((overflows, malformed), (1, Ok(0)));
    }

    #[test]
    fn what_a_later_kernel_adds_is_passed_over() {
        let records = [record(200, b"anything"), named(DFID_NAME, 1, b"name")];
        let mut bytes = event(Mask::OPEN, &records);
        assert_eq!(names(&bytes), (vec!["name".to_owned()], 0));

        bytes.splice(METADATA_LEN..METADATA_LEN, [0; 8]);
        bytes[6..8].copy_from_slice(&32_u16.to_ne_bytes());
        let len = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(names(&bytes), (vec!["name".to_owned()], 0));
    }

    #[test]
    fn an_event_with_a_bad_record_is_counted_and_the_next_is_read() {
        for bad in [
            vec![DFID_NAME],
            vec![DFID_NAME, 0, 0, 0],
            vec![DFID_NAME, 0, 255, 255],
            record(DFID_NAME, &[]),
            record(DFID_NAME, &handle(1)),
            record(DFID_NAME, &[handle(1), b"no end!!".to_vec()].concat()),
            named(DFID_NAME, 1, b""),
            record(FID, &[0; 16]),
        ] {
            let bytes = [event(Mask::OPEN, std::slice::from_ref(&bad)), created(1, "next")].concat();
            assert_eq!(names(&bytes), (vec!["next".to_owned()], 1), "{bad:?}");
        }
    }

    #[test]
    fn an_event_with_a_bad_length_ends_what_can_be_read() {
        for len in [0, 23, 1000, u32::MAX] {
            let mut bad = created(1, "bad");
            bad[..4].copy_from_slice(&len.to_ne_bytes());
            let bytes = [created(1, "first"), bad, created(1, "last")].concat();
            assert_eq!(names(&bytes), (vec!["first".to_owned()], 1), "{len}");
        }
        let mut bytes = created(1, "name");
        bytes.truncate(METADATA_LEN - 1);
        assert_eq!(names(&bytes), (vec![], 1));
    }

    #[test]
    fn another_version_is_an_error() {
        let mut bytes = created(1, "name");
        bytes[4] = 4;
        assert_eq!(parse(&bytes, |_| panic!("it is not known")), Err(UnknownVersion(4)));
    }

    /// Every event takes the bytes of its metadata, and whatever it tells lies in what was read.
    fn expect_sense(bytes: &[u8]) {
        let mut notices = 0;
        let malformed = parse(bytes, |notice| {
            notices += 1;
            let Notice::Event(event) = notice else { return };
            for entry in [event.dir, event.old, event.new].into_iter().flatten() {
                assert!(!entry.name.is_empty() && !entry.name.contains(&0));
                assert!(entry.is_itself() || bytes.as_ptr_range().contains(&entry.name.as_ptr()));
                let _ = format!("{:?}", entry.dir);
            }
        });
        if let Ok(malformed) = malformed {
            let events = u64::try_from(bytes.len().div_ceil(METADATA_LEN)).unwrap();
            assert!(malformed + notices <= events);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(0u8.., 0..200)) {
            expect_sense(&bytes);
            // With a version that is known, more of them are looked at.
            for records in [vec![bytes.clone()], vec![record(DFID_NAME, &bytes)]] {
                expect_sense(&event(Mask::OPEN, &records));
            }
        }

        #[test]
        fn true_events_with_some_bytes_changed_are_not_too_odd_either(
            changes in proptest::collection::vec((0usize..400, 0u8..), 0..8),
            len in 0usize..400,
        ) {
            let renamed = [named(OLD, 1, b"from"), named(NEW, 2, b"to"), record(FID, &handle(3))];
            let overflow = event(Mask::told(libc::FAN_Q_OVERFLOW), &[]);
            let mut bytes =
                [created(1, "name"), event(Mask::RENAME, &renamed), overflow, created(2, "other")].concat();
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(len);
            expect_sense(&bytes);
        }
    }
}
