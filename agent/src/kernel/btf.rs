//! Reads the kernel's description of its own types (BTF): names, sizes, members.
//!
//! The format is that of `Documentation/bpf/btf.rst` in the kernel tree
//! (<https://docs.kernel.org/bpf/btf.html>), version 1, kinds 1 (`INT`) to 19 (`ENUM64`). Only base BTF is
//! read (`/sys/kernel/btf/vmlinux`), not the split BTF of modules.
//!
//! The bytes are taken as they are and an index of four bytes a type is laid beside them: about 6 MB for a
//! distribution's kernel. Any bytes give an answer or a [`BtfError`] in time proportional to their length;
//! cycles and chains that no compiler emits are errors.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// Where a kernel built with `CONFIG_DEBUG_INFO_BTF` shows its types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Magic, version, flags, header length, and offset and length of the two sections.
const HEADER_LEN: usize = 24;
/// Typedefs and qualifiers between a use and its type; the kernel's own limit is the same
/// (`MAX_RESOLVE_DEPTH` in <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/btf.c>).
const LONGEST_CHAIN: usize = 32;

/// The type section is made of these, in the byte order of the machine.
type Word = [u8; 4];

/// Why bytes are not BTF that can be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error(
        "cannot read {path}: {error}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y and /sys mounted"
    )]
    Read {
        /// The file.
        path: &'static str,
        /// What the system said; part of the message, so not a source of its own.
        error: std::io::Error,
    },
    /// Fewer bytes than a header has.
    #[error("BTF of {0} bytes is shorter than its header of {HEADER_LEN} bytes")]
    Short(usize),
    /// Not BTF at all.
    #[error("not BTF: the first two bytes are {0:#06x}, {MAGIC:#06x} expected")]
    Magic(u16),
    /// BTF of a machine with the other byte order.
    #[error("BTF has the byte order of another machine; use the BTF of the running kernel")]
    ByteOrder,
    /// A version or flag that came after this reader.
    #[error(
        "BTF version {version} with flags {flags:#04x} is not known, version {VERSION} without flags expected; \
         use a Nightjar release that knows this kernel"
    )]
    Version {
        /// Version in the header.
        version: u8,
        /// Flags in the header.
        flags: u8,
    },
    /// The header or a section does not lie within the bytes.
    #[error("BTF {0} does not fit the file; the file is cut short or damaged")]
    Section(&'static str),
    /// A type ends after its section.
    #[error("BTF type {0} is cut off by the end of the type section; the file is damaged")]
    Truncated(u32),
    /// A kind that came after this reader; what follows it cannot be found.
    #[error(
        "BTF type {id} is of kind {kind}, which is not known; use a Nightjar release that knows this kernel"
    )]
    UnknownKind {
        /// Number of the type.
        id: u32,
        /// Number of the kind.
        kind: u32,
    },
    /// A reference to a type that does not exist.
    #[error("BTF refers to type {0}, which does not exist; the file is damaged")]
    NoType(u32),
    /// A name outside the string section.
    #[error("BTF refers to a name at {0}, outside its strings; the file is damaged")]
    NoName(u32),
    /// Typedefs and qualifiers without an end.
    #[error("BTF type {0} is a cycle, or a chain of more than {LONGEST_CHAIN} typedefs and qualifiers")]
    Chain(u32),
}

/// Number of a type, 0 being `void`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u32);

macro_rules! kinds {
    ($($number:literal $name:ident $says:literal: $fixed:literal + $each:literal;)*) => {
        /// What sort of type a type is, numbered as in BTF.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "named and described by btf.rst")]
        pub enum Kind { Void, $($name,)* }

        impl Kind {
            fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Words that follow the first three of a type: a fixed number, and so many for each member,
            /// parameter or enumerator.
            fn trailer(self) -> (usize, usize) {
                match self { Self::Void => (0, 0), $(Self::$name => ($fixed, $each),)* }
            }
        }

        impl std::fmt::Display for Kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { Self::Void => "void", $(Self::$name => $says,)* })
            }
        }
    };
}

kinds! {
    1 Int "an integer": 1 + 0;
    2 Ptr "a pointer": 0 + 0;
    3 Array "an array": 3 + 0;
    4 Struct "a structure": 0 + 3;
    5 Union "a union": 0 + 3;
    6 Enum "an enumeration": 0 + 2;
    7 Fwd "a forward declaration": 0 + 0;
    8 Typedef "a typedef": 0 + 0;
    9 Volatile "a volatile type": 0 + 0;
    10 Const "a constant type": 0 + 0;
    11 Restrict "a restricted pointer": 0 + 0;
    12 Func "a function": 0 + 0;
    13 FuncProto "a function type": 0 + 2;
    14 Var "a variable": 1 + 0;
    15 Datasec "a data section": 0 + 3;
    16 Float "a floating-point number": 0 + 0;
    17 DeclTag "a declaration tag": 1 + 0;
    18 TypeTag "a type tag": 0 + 0;
    19 Enum64 "a 64-bit enumeration": 0 + 3;
}

impl Kind {
    /// Whether it has members.
    #[must_use]
    pub fn has_members(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }
}

/// A type that is no typedef, qualifier or type tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Number of the type.
    pub id: TypeId,
    /// What it is.
    pub kind: Kind,
    /// Bytes, of the kinds that state their size: integers, enumerations, structures, unions, floats.
    pub size: Option<u32>,
}

/// A member of a structure or union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Bits from the start of the structure that was asked for, through anonymous ones.
    pub bit_offset: u64,
    /// Whether it is a bitfield, which has no byte offset.
    pub bitfield: bool,
    /// Its type as declared.
    pub declared: TypeId,
}

/// Types found by name; of several types with one name, the first.
#[derive(Debug)]
pub struct Names<'n>(HashMap<&'n [u8], Found>);

/// C code may use one name for a structure, an enumeration and a typedef.
#[derive(Debug, Default)]
struct Found {
    structure: Option<TypeId>,
    enumeration: Option<TypeId>,
    typedef: Option<TypeId>,
}

/// BTF of a kernel.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    types: std::ops::Range<usize>,
    strings: std::ops::Range<usize>,
    /// Where each type starts, in words of the type section; type 1 is first.
    index: Vec<u32>,
}

/// A type as it lies in the type section.
struct Raw<'a> {
    name: u32,
    kind: Kind,
    /// The meaning depends on the kind: members carry bitfield sizes, enumerators are signed.
    flag: bool,
    size_or_type: u32,
    trailer: &'a [Word],
}

// === impl Btf ===

impl Btf {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    ///
    /// [`BtfError::Read`] where the kernel shows none, else as [`Btf::parse`].
    pub fn from_kernel() -> Result<Self, BtfError> {
        let data =
            fs::read(Path::new(KERNEL_BTF)).map_err(|error| BtfError::Read { path: KERNEL_BTF, error })?;
        Self::parse(data)
    }

    /// Takes BTF as a file has it, from its magic on, in the byte order of this machine.
    ///
    /// # Errors
    ///
    /// Where the header, the sections, or the extent or name of any type are not as btf.rst has them.
    /// References between types are checked when they are followed.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let (types, strings) = sections(&data)?;
        let mut btf = Self { data, types, strings, index: Vec::new() };
        btf.index = btf.index_types()?;
        Ok(btf)
    }

    /// Looks up names in one pass over the types; no index of the other names is kept.
    ///
    /// # Errors
    ///
    /// None for BTF that [`Btf::parse`] took.
    pub fn find<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Names<'n>, BtfError> {
        let mut names: HashMap<&[u8], Found> =
            names.into_iter().map(|name| (name.as_bytes(), Found::default())).collect();
        let longest = names.keys().map(|name| name.len()).max().unwrap_or(0);
        for id in self.ids() {
            let raw = self.raw(id)?;
            if !matches!(raw.kind, Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Typedef) {
                continue;
            }
            let Some(found) = self.name_within(raw.name, longest)?.and_then(|name| names.get_mut(name))
            else {
                continue;
            };
            let place = match raw.kind {
                Kind::Typedef => &mut found.typedef,
                Kind::Enum | Kind::Enum64 => &mut found.enumeration,
                _ => &mut found.structure,
            };
            place.get_or_insert(id);
        }
        Ok(Names(names))
    }

    /// What a type is behind its typedefs, qualifiers and type tags.
    ///
    /// # Errors
    ///
    /// [`BtfError::Chain`] or [`BtfError::NoType`].
    pub fn underlying(&self, id: TypeId) -> Result<Type, BtfError> {
        let mut at = id;
        for _ in 0..=LONGEST_CHAIN {
            let raw = self.raw(at)?;
            match raw.kind {
                Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                    at = TypeId(raw.size_or_type);
                }
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float => {
                    return Ok(Type { id: at, kind: raw.kind, size: Some(raw.size_or_type) });
                }
                kind => return Ok(Type { id: at, kind, size: None }),
            }
        }
        Err(BtfError::Chain(id.0))
    }

    /// Looks up a member by name, in the structure or union and in anonymous ones within it. `None` if there
    /// is no such member, or if the type has no members.
    ///
    /// # Errors
    ///
    /// [`BtfError`] if a type or name on the way is not there.
    pub fn member(&self, structure: TypeId, name: &str) -> Result<Option<Member>, BtfError> {
        // Members of one structure have different names, so the order does not matter; each anonymous
        // structure is read once, however often damaged BTF refers to it.
        let mut seen = HashSet::from([structure]);
        let mut pending = vec![(structure, 0)];
        while let Some((id, start)) = pending.pop() {
            let raw = self.raw(id)?;
            if !raw.kind.has_members() {
                continue;
            }
            for entry in raw.trailer.as_chunks::<3>().0 {
                let [member_name, declared, place] = entry.map(u32::from_ne_bytes);
                let (offset, bits) = if raw.flag { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
                let (declared, bit_offset) = (TypeId(declared), start + u64::from(offset));
                if self.name_is(member_name, name)? {
                    let bitfield = bits != 0 || bit_offset % 8 != 0 || self.is_part_of_integer(declared)?;
                    return Ok(Some(Member { bit_offset, bitfield, declared }));
                }
                if self.name_is(member_name, "")? {
                    let inner = self.underlying(declared)?;
                    if inner.kind.has_members() && seen.insert(inner.id) {
                        pending.push((inner.id, bit_offset));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Value of an enumerator. `None` if there is no such enumerator, or if the type is no enumeration.
    ///
    /// # Errors
    ///
    /// [`BtfError`] if the type or a name is not there.
    pub fn enumerator(&self, enumeration: TypeId, name: &str) -> Result<Option<i128>, BtfError> {
        let raw = self.raw(enumeration)?;
        let signed = raw.flag;
        match raw.kind {
            Kind::Enum => {
                for entry in raw.trailer.as_chunks::<2>().0 {
                    let [enumerator, value] = entry.map(u32::from_ne_bytes);
                    if self.name_is(enumerator, name)? {
                        let value = if signed { value.cast_signed().into() } else { value.into() };
                        return Ok(Some(value));
                    }
                }
            }
            Kind::Enum64 => {
                for entry in raw.trailer.as_chunks::<3>().0 {
                    let [enumerator, low, high] = entry.map(u32::from_ne_bytes);
                    if self.name_is(enumerator, name)? {
                        let value = u64::from(high) << 32 | u64::from(low);
                        let value = if signed { value.cast_signed().into() } else { value.into() };
                        return Ok(Some(value));
                    }
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// How many parameters a function pointer takes, `...` not counted. `None` if the type is no pointer to a
    /// function.
    ///
    /// # Errors
    ///
    /// [`BtfError`] if a type on the way is not there.
    pub fn parameters(&self, function_pointer: TypeId) -> Result<Option<usize>, BtfError> {
        let pointer = self.underlying(function_pointer)?;
        if pointer.kind != Kind::Ptr {
            return Ok(None);
        }
        let target = self.underlying(TypeId(self.raw(pointer.id)?.size_or_type))?;
        if target.kind != Kind::FuncProto {
            return Ok(None);
        }
        let parameters = self.raw(target.id)?.trailer.as_chunks::<2>().0;
        let dots = parameters.last() == Some(&[[0; 4]; 2]);
        Ok(Some(parameters.len() - usize::from(dots)))
    }

    fn index_types(&self) -> Result<Vec<u32>, BtfError> {
        let mut index = Vec::new();
        let mut at = 0;
        let words = self.words().len();
        for id in 1.. {
            if at == words {
                break;
            }
            let raw = decode(self.words(), at, id)?;
            self.string(raw.name)?;
            // A section is not longer than its 32-bit length says.
            index.push(u32::try_from(at).map_err(|_| BtfError::Section("type section"))?);
            at += 3 + raw.trailer.len();
        }
        Ok(index)
    }

    fn ids(&self) -> impl Iterator<Item = TypeId> {
        (1..).take(self.index.len()).map(TypeId)
    }

    fn words(&self) -> &[Word] {
        self.data[self.types.clone()].as_chunks().0
    }

    fn raw(&self, id: TypeId) -> Result<Raw<'_>, BtfError> {
        let Some(before) = id.0.checked_sub(1) else {
            return Ok(Raw { name: 0, kind: Kind::Void, flag: false, size_or_type: 0, trailer: &[] });
        };
        let at = *self.index.get(before as usize).ok_or(BtfError::NoType(id.0))?;
        decode(self.words(), at as usize, id.0)
    }

    /// Whether the type is an integer of fewer bits than its bytes have: how BTF told bitfields before
    /// structures carried the kind flag.
    fn is_part_of_integer(&self, declared: TypeId) -> Result<bool, BtfError> {
        let ty = self.underlying(declared)?;
        if ty.kind != Kind::Int {
            return Ok(false);
        }
        let raw = self.raw(ty.id)?;
        Ok(raw.trailer.iter().any(|word| {
            let encoding = u32::from_ne_bytes(*word);
            let (first_bit, bits) = (encoding >> 16 & 0xff, encoding & 0xff);
            first_bit != 0 || u64::from(bits) != u64::from(raw.size_or_type) * 8
        }))
    }

    /// The string section from a name on.
    fn string(&self, name: u32) -> Result<&[u8], BtfError> {
        match self.data[self.strings.clone()].get(name as usize..) {
            Some(string) if !string.is_empty() => Ok(string),
            _ => Err(BtfError::NoName(name)),
        }
    }

    /// A name of at most `longest` bytes; `None` for longer ones, which are not read to their end.
    fn name_within(&self, name: u32, longest: usize) -> Result<Option<&[u8]>, BtfError> {
        let string = self.string(name)?;
        let window = &string[..string.len().min(longest + 1)];
        Ok(window.iter().position(|&byte| byte == 0).map(|end| &window[..end]))
    }

    fn name_is(&self, name: u32, wanted: &str) -> Result<bool, BtfError> {
        Ok(self.string(name)?.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
    }
}

// === impl Names ===

impl Names<'_> {
    /// The structure or union of this name.
    #[must_use]
    pub fn structure(&self, name: &str) -> Option<TypeId> {
        self.0.get(name.as_bytes())?.structure
    }

    /// The enumeration of this name.
    #[must_use]
    pub fn enumeration(&self, name: &str) -> Option<TypeId> {
        self.0.get(name.as_bytes())?.enumeration
    }

    /// The typedef of this name.
    #[must_use]
    pub fn typedef(&self, name: &str) -> Option<TypeId> {
        self.0.get(name.as_bytes())?.typedef
    }
}

/// Checks the header and gives the type section and the string section as ranges of the file.
fn sections(data: &[u8]) -> Result<(std::ops::Range<usize>, std::ops::Range<usize>), BtfError> {
    let header = data.first_chunk::<HEADER_LEN>().ok_or(BtfError::Short(data.len()))?;
    let magic = u16::from_ne_bytes([header[0], header[1]]);
    if magic == MAGIC.swap_bytes() {
        return Err(BtfError::ByteOrder);
    }
    if magic != MAGIC {
        return Err(BtfError::Magic(magic));
    }
    let (version, flags) = (header[2], header[3]);
    if version != VERSION || flags != 0 {
        return Err(BtfError::Version { version, flags });
    }
    let field =
        |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    // A longer header has more sections, which are not needed to read these.
    let header_len = field(4);
    if header_len < HEADER_LEN || header_len > data.len() {
        return Err(BtfError::Section("header"));
    }
    let section = |at: usize, name| {
        let start = header_len.checked_add(field(at));
        let end = start.and_then(|start| start.checked_add(field(at + 4)));
        match (start, end) {
            (Some(start), Some(end)) if end <= data.len() => Ok(start..end),
            _ => Err(BtfError::Section(name)),
        }
    };
    let types = section(8, "type section")?;
    let strings = section(16, "string section")?;
    if types.len() % size_of::<Word>() != 0 {
        return Err(BtfError::Section("type section"));
    }
    match &data[strings.clone()] {
        [0] | [0, .., 0] => Ok((types, strings)),
        _ => Err(BtfError::Section("string section")),
    }
}

/// Reads the type that starts at a word of the type section.
fn decode(words: &[Word], at: usize, id: u32) -> Result<Raw<'_>, BtfError> {
    let (head, rest) =
        words.get(at..).and_then(|words| words.split_first_chunk::<3>()).ok_or(BtfError::Truncated(id))?;
    let [name, info, size_or_type] = head.map(u32::from_ne_bytes);
    // btf.rst has the count in bits 0-15 and the kind in bits 24-28, and the bits above each unused, which is
    // zero. They are read along: a kernel that puts them to use is read rightly or gets the named error.
    let (count, number, flag) = (info & 0x00ff_ffff, info >> 24 & 0x7f, info >> 31 == 1);
    let kind = Kind::from_number(number).ok_or(BtfError::UnknownKind { id, kind: number })?;
    let (fixed, each) = kind.trailer();
    let trailer = rest.get(..fixed + each * count as usize).ok_or(BtfError::Truncated(id))?;
    Ok(Raw { name, kind, flag, size_or_type, trailer })
}

/// Makes small BTF for tests.
#[cfg(test)]
pub(super) mod fixture {
    use super::{HEADER_LEN, Kind, MAGIC, VERSION};

    /// A member: name, type, offset in bits.
    pub type Place = (&'static str, u32, u32);

    /// Collects types; every method gives the number of the type it added.
    pub struct BtfBuilder {
        pub types: Vec<u32>,
        pub strings: Vec<u8>,
        count: u32,
    }

    impl BtfBuilder {
        pub fn new() -> Self {
            Self { types: Vec::new(), strings: vec![0], count: 0 }
        }

        pub fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = u32::try_from(self.strings.len()).unwrap();
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        pub fn raw(&mut self, name: &str, info: u32, size_or_type: u32, trailer: &[u32]) -> u32 {
            let name = self.name(name);
            self.types.extend([name, info, size_or_type]);
            self.types.extend(trailer);
            self.count += 1;
            self.count
        }

        pub fn int(&mut self, name: &str, bytes: u32) -> u32 {
            self.int_of_bits(name, bytes, bytes * 8)
        }

        pub fn int_of_bits(&mut self, name: &str, bytes: u32, bits: u32) -> u32 {
            self.raw(name, info(Kind::Int, 0), bytes, &[bits])
        }

        pub fn pointer(&mut self, to: u32) -> u32 {
            self.qualified(Kind::Ptr, to)
        }

        /// A pointer, qualifier or type tag.
        pub fn qualified(&mut self, kind: Kind, of: u32) -> u32 {
            self.raw("", info(kind, 0), of, &[])
        }

        pub fn typedef(&mut self, name: &str, of: u32) -> u32 {
            self.raw(name, info(Kind::Typedef, 0), of, &[])
        }

        pub fn array(&mut self, of: u32, elements: u32) -> u32 {
            self.raw("", info(Kind::Array, 0), 0, &[of, of, elements])
        }

        pub fn structure(&mut self, name: &str, bytes: u32, members: &[Place]) -> u32 {
            let trailer = self.members(members);
            self.raw(name, info(Kind::Struct, members.len()), bytes, &trailer)
        }

        pub fn union(&mut self, name: &str, bytes: u32, members: &[Place]) -> u32 {
            let trailer = self.members(members);
            self.raw(name, info(Kind::Union, members.len()), bytes, &trailer)
        }

        /// A structure whose members state how many bits they have, 0 for those that are no bitfields.
        pub fn structure_with_bits(&mut self, name: &str, bytes: u32, members: &[(Place, u32)]) -> u32 {
            let members: Vec<Place> =
                members.iter().map(|((name, ty, at), bits)| (*name, *ty, bits << 24 | at)).collect();
            let trailer = self.members(&members);
            self.raw(name, info(Kind::Struct, members.len()) | 1 << 31, bytes, &trailer)
        }

        pub fn enumeration(&mut self, name: &str, enumerators: &[(&str, u32)]) -> u32 {
            let trailer: Vec<u32> =
                enumerators.iter().flat_map(|(name, value)| [self.name(name), *value]).collect();
            self.raw(name, info(Kind::Enum, enumerators.len()), 4, &trailer)
        }

        pub fn enumeration64(&mut self, name: &str, enumerators: &[(&str, u64)]) -> u32 {
            let halves = |value: u64| [value & 0xffff_ffff, value >> 32].map(|h| u32::try_from(h).unwrap());
            let trailer: Vec<u32> = enumerators
                .iter()
                .flat_map(|(name, value)| {
                    let [low, high] = halves(*value);
                    [self.name(name), low, high]
                })
                .collect();
            self.raw(name, info(Kind::Enum64, enumerators.len()), 8, &trailer)
        }

        /// A function type that gives nothing.
        pub fn function(&mut self, parameters: &[u32]) -> u32 {
            let trailer: Vec<u32> = parameters.iter().flat_map(|ty| [0, *ty]).collect();
            self.raw("", info(Kind::FuncProto, parameters.len()), 0, &trailer)
        }

        fn members(&mut self, members: &[Place]) -> Vec<u32> {
            members.iter().flat_map(|(name, ty, at)| [self.name(name), *ty, *at]).collect()
        }

        pub fn build(&self) -> Vec<u8> {
            let types: Vec<u8> = self.types.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let lengths = [types.len(), self.strings.len()].map(|len| u32::try_from(len).unwrap());
            let mut data = MAGIC.to_ne_bytes().to_vec();
            data.extend([VERSION, 0]);
            for word in [u32::try_from(HEADER_LEN).unwrap(), 0, lengths[0], lengths[0], lengths[1]] {
                data.extend(word.to_ne_bytes());
            }
            data.extend(types);
            data.extend(&self.strings);
            data
        }
    }

    pub fn info(kind: Kind, count: usize) -> u32 {
        (kind as u32) << 24 | u32::try_from(count).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{BtfBuilder, info};
    use super::*;

    fn parse(builder: &BtfBuilder) -> Btf {
        Btf::parse(builder.build()).unwrap()
    }

    /// A file of no types, with one byte of it changed.
    fn with_byte(at: usize, byte: u8) -> Result<Btf, BtfError> {
        let mut data = BtfBuilder::new().build();
        data[at] = byte;
        Btf::parse(data)
    }

    #[test]
    fn a_file_without_types_is_valid() {
        assert!(Btf::parse(BtfBuilder::new().build()).is_ok());
    }

    #[test]
    fn an_empty_file_is_too_short() {
        let error = Btf::parse(Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "BTF of 0 bytes is shorter than its header of 24 bytes");
    }

    #[test]
    fn another_file_is_told_by_its_magic() {
        assert!(matches!(with_byte(0, 0x7f), Err(BtfError::Magic(_))));
    }

    #[test]
    fn the_other_byte_order_is_named() {
        let mut data = BtfBuilder::new().build();
        data[..2].reverse();
        assert!(matches!(Btf::parse(data), Err(BtfError::ByteOrder)));
    }

    #[test]
    fn a_later_version_is_named() {
        let error = with_byte(2, 2).unwrap_err();
        assert!(error.to_string().starts_with("BTF version 2 with flags 0x00 is not known"), "{error}");
    }

    #[test]
    fn a_longer_header_is_stepped_over() {
        let mut builder = BtfBuilder::new();
        builder.structure("file", 8, &[]);
        let mut data = builder.build();
        data[4..8].copy_from_slice(&32u32.to_ne_bytes());
        data.splice(24..24, [0xff; 8]);
        assert!(Btf::parse(data).unwrap().find(["file"]).unwrap().structure("file").is_some());
    }

    #[test]
    fn a_section_past_the_end_is_refused() {
        let mut data = BtfBuilder::new().build();
        data[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(Btf::parse(data), Err(BtfError::Section("string section"))));
    }

    #[test]
    fn strings_that_do_not_end_are_refused() {
        let mut builder = BtfBuilder::new();
        builder.strings.push(b'x');
        assert!(matches!(Btf::parse(builder.build()), Err(BtfError::Section("string section"))));
    }

    #[test]
    fn a_type_cut_off_is_named_by_its_number() {
        let mut builder = BtfBuilder::new();
        builder.int("int", 4);
        builder.raw("file", info(Kind::Struct, 2), 8, &[0, 0, 0]);
        assert!(matches!(Btf::parse(builder.build()), Err(BtfError::Truncated(2))));
    }

    #[test]
    fn an_unknown_kind_is_named_by_its_number() {
        let mut builder = BtfBuilder::new();
        builder.raw("", 20 << 24, 0, &[]);
        let error = Btf::parse(builder.build()).unwrap_err();
        assert!(error.to_string().starts_with("BTF type 1 is of kind 20, which is not known"), "{error}");
    }

    #[test]
    fn a_name_outside_the_strings_is_refused() {
        let mut builder = BtfBuilder::new();
        builder.types.extend([99, info(Kind::Fwd, 0), 0]);
        assert!(matches!(Btf::parse(builder.build()), Err(BtfError::NoName(99))));
    }

    #[test]
    fn every_kind_is_stepped_over_by_its_length() {
        let mut builder = BtfBuilder::new();
        for number in 1..=19 {
            let kind = Kind::from_number(number).unwrap();
            let (fixed, each) = kind.trailer();
            builder.raw("", info(kind, 3), 0, &vec![0; fixed + 3 * each]);
        }
        let last = builder.structure("last", 1, &[]);
        assert_eq!(parse(&builder).find(["last"]).unwrap().structure("last"), Some(TypeId(last)));
    }

    #[test]
    fn of_two_structures_with_one_name_the_first_is_found() {
        let mut builder = BtfBuilder::new();
        let first = builder.structure("workspace", 8, &[]);
        builder.structure("workspace", 16, &[]);
        assert_eq!(parse(&builder).find(["workspace"]).unwrap().structure("workspace"), Some(TypeId(first)));
    }

    #[test]
    fn structure_enumeration_and_typedef_of_one_name_are_kept_apart() {
        let mut builder = BtfBuilder::new();
        let typedef = builder.typedef("x", 2);
        let structure = builder.structure("x", 8, &[]);
        let enumeration = builder.enumeration("x", &[]);
        let btf = parse(&builder);
        let names = btf.find(["x"]).unwrap();
        assert_eq!(names.typedef("x"), Some(TypeId(typedef)));
        assert_eq!(names.structure("x"), Some(TypeId(structure)));
        assert_eq!(names.enumeration("x"), Some(TypeId(enumeration)));
    }

    #[test]
    fn a_name_is_not_found_by_its_beginning() {
        let mut builder = BtfBuilder::new();
        builder.structure("files", 8, &[]);
        assert_eq!(parse(&builder).find(["file"]).unwrap().structure("file"), None);
    }

    #[test]
    fn typedefs_qualifiers_and_type_tags_are_looked_through() {
        let mut builder = BtfBuilder::new();
        let mut id = builder.int("unsigned int", 4);
        for kind in [Kind::Const, Kind::Volatile, Kind::Restrict, Kind::TypeTag, Kind::Typedef] {
            id = builder.qualified(kind, id);
        }
        let ty = parse(&builder).underlying(TypeId(id)).unwrap();
        assert_eq!(ty, Type { id: TypeId(1), kind: Kind::Int, size: Some(4) });
    }

    #[test]
    fn a_typedef_of_itself_is_an_error() {
        let mut builder = BtfBuilder::new();
        builder.typedef("ouroboros", 1);
        assert!(matches!(parse(&builder).underlying(TypeId(1)), Err(BtfError::Chain(1))));
    }

    #[test]
    fn a_reference_to_no_type_is_an_error() {
        let mut builder = BtfBuilder::new();
        builder.typedef("dangling", 7);
        assert!(matches!(parse(&builder).underlying(TypeId(1)), Err(BtfError::NoType(7))));
    }

    #[test]
    fn a_structure_that_contains_itself_ends_the_search() {
        let mut builder = BtfBuilder::new();
        builder.structure("klein_bottle", 8, &[("", 1, 0)]);
        assert_eq!(parse(&builder).member(TypeId(1), "inside").unwrap(), None);
    }

    /// 2^60 ways lead to the innermost structure; a search that took each would not come back.
    #[test]
    fn an_anonymous_structure_is_searched_once_however_often_it_occurs() {
        let mut builder = BtfBuilder::new();
        for level in 1..60 {
            builder.structure("", 8, &[("", level + 1, 0), ("", level + 1, 0)]);
        }
        builder.structure("", 8, &[]);
        assert_eq!(parse(&builder).member(TypeId(1), "absent").unwrap(), None);
    }

    #[test]
    fn anonymous_structures_may_nest_deeper_than_the_stack() {
        let mut builder = BtfBuilder::new();
        let depth = 100_000;
        for level in 1..depth {
            builder.structure("", 8, &[("", level + 1, 8)]);
        }
        let int = depth + 1;
        builder.structure("", 8, &[("innermost", int, 8)]);
        builder.int("int", 4);
        let member = parse(&builder).member(TypeId(1), "innermost").unwrap().unwrap();
        assert_eq!(member.bit_offset, u64::from(depth) * 8);
    }

    #[test]
    fn enumerators_are_signed_where_the_enumeration_says_so() {
        let mut builder = BtfBuilder::new();
        let unsigned = builder.enumeration("state", &[("ALL", u32::MAX)]);
        let name = builder.name("NONE");
        let signed = builder.raw("error", info(Kind::Enum, 1) | 1 << 31, 4, &[name, u32::MAX]);
        let btf = parse(&builder);
        assert_eq!(btf.enumerator(TypeId(unsigned), "ALL").unwrap(), Some(i128::from(u32::MAX)));
        assert_eq!(btf.enumerator(TypeId(signed), "NONE").unwrap(), Some(-1));
    }

    #[test]
    fn dots_at_the_end_are_no_parameter() {
        let mut builder = BtfBuilder::new();
        let int = builder.int("int", 4);
        let printk = builder.function(&[int, 0]);
        let pointer = builder.pointer(printk);
        assert_eq!(parse(&builder).parameters(TypeId(pointer)).unwrap(), Some(1));
    }

    #[test]
    fn a_pointer_to_data_takes_no_parameters() {
        let mut builder = BtfBuilder::new();
        let int = builder.int("int", 4);
        let pointer = builder.pointer(int);
        assert_eq!(parse(&builder).parameters(TypeId(pointer)).unwrap(), None);
    }
}
