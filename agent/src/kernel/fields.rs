//! Resolves the kernel-field table ([`nightjar_abi::fields`]) against a kernel's BTF.
//!
//! Each row's spellings are tried in order and the first that the kernel has is taken. Only absence moves on
//! to the next spelling or makes an optional row [`MISSING`]; a field that is there but is not what the row
//! says is an error, since reading it would give wrong values in silence.

use std::fmt;

use nightjar_abi::fields::{FieldSpec, MISSING, Shape};

use super::btf::{Btf, BtfError, Kind, Member, Names, TypeId};

/// The table resolved against one kernel, rows in the order of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsets {
    values: Vec<u32>,
    rows: Vec<(&'static str, Option<&'static str>)>,
}

/// What became of a row, for `doctor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolvedRow {
    /// Name of the row.
    pub name: &'static str,
    /// The spelling that was taken; `None` if the kernel has none of them.
    pub spelling: Option<&'static str>,
    /// Byte offset, size, enumerator or count; [`MISSING`] if the kernel has none.
    pub value: u32,
}

/// Why the table does not fit a kernel.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A row does not fit.
    #[error(
        "kernel field {row}: {problem} (kernel {kernel}, spellings: {}); {}",
        spellings.join(", "),
        problem.remedy()
    )]
    Row {
        /// Name of the row.
        row: &'static str,
        /// All spellings of the row.
        spellings: &'static [&'static str],
        /// Release of the kernel, as given to [`resolve`].
        kernel: String,
        /// What does not fit; part of the message, so not a source of its own.
        problem: Problem,
    },
    /// The BTF as a whole cannot be searched.
    #[error("kernel fields of kernel {kernel}: {problem}")]
    Btf {
        /// Release of the kernel, as given to [`resolve`].
        kernel: String,
        /// What is wrong with the BTF; part of the message, so not a source of its own.
        problem: BtfError,
    },
}

/// What does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// None of the structures, enumerations or typedefs that the spellings start from is there.
    #[error("{}", join(.0))]
    MissingType(Vec<Absence>),
    /// None of the spellings is there.
    #[error("{}", join(.0))]
    MissingField(Vec<Absence>),
    /// Bits cannot be read by a byte offset.
    #[error("{field} is a bitfield in this kernel, which has no byte offset")]
    Bitfield {
        /// Path of the field.
        field: String,
    },
    /// A field of another size.
    #[error("{field} is {found} bytes in this kernel, {expected} expected")]
    WrongSize {
        /// Path of the field.
        field: String,
        /// Bytes in this kernel.
        found: u32,
        /// Bytes in the table.
        expected: u32,
    },
    /// A field that is not a number of any size.
    #[error("{field} is {found} in this kernel, a number of {expected} bytes expected")]
    NotANumber {
        /// Path of the field.
        field: String,
        /// What it is.
        found: Kind,
        /// Bytes in the table.
        expected: u32,
    },
    /// A field that is not a pointer.
    #[error("{field} is {found} in this kernel, a pointer expected")]
    NotAPointer {
        /// Path of the field.
        field: String,
        /// What it is.
        found: Kind,
    },
    /// A path that would need a read on its way.
    #[error("{member} is a pointer in this kernel and cannot be a step on the way to a field")]
    ThroughPointer {
        /// Path of the member.
        member: String,
    },
    /// A path through something that has no members.
    #[error("{member} is {found} in this kernel and has no members")]
    NoMembers {
        /// Path of the member.
        member: String,
        /// What it is.
        found: Kind,
    },
    /// A typedef that is no function pointer.
    #[error("typedef {typedef} is not a pointer to a function in this kernel")]
    NotAFunction {
        /// Name of the typedef.
        typedef: &'static str,
    },
    /// A value that the array of offsets cannot hold.
    #[error("{spelling} is {value} in this kernel, a number from 0 to {} expected", MISSING - 1)]
    OutOfRange {
        /// What was looked up.
        spelling: String,
        /// What it is.
        value: i128,
    },
    /// A spelling that is none of those in [`nightjar_abi::fields`], or not one for this shape of row.
    #[error("`{spelling}` is not a spelling; {expected} expected")]
    Malformed {
        /// The spelling.
        spelling: &'static str,
        /// What a row of this shape has.
        expected: &'static str,
    },
    /// The BTF itself.
    #[error(transparent)]
    Btf(#[from] BtfError),
}

/// Why a spelling is not in a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// No type of the name: what it is, and the name.
    Type(&'static str, &'static str),
    /// No member or enumerator of the name: path of the type, and the name.
    Part(String, &'static str),
}

/// A spelling, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// A structure, and the path behind its first dot.
    Member(&'static str, &'static str),
    SizeOf(&'static str),
    /// An enumeration and its enumerator.
    Enumerator(&'static str, &'static str),
    /// A typedef.
    Parameters(&'static str),
}

/// Looks up every row of `table`; `kernel` is the kernel's release, for messages.
///
/// # Errors
///
/// [`ResolveError`] for the first row that is required and absent, that the kernel has otherwise than the row
/// says, or whose spellings are malformed (all are checked, not only those that are needed).
pub fn resolve(btf: &Btf, table: &[FieldSpec], kernel: &str) -> Result<Offsets, ResolveError> {
    let fail = |row: &FieldSpec, problem| ResolveError::Row {
        row: row.name,
        spellings: row.spellings,
        kernel: kernel.to_owned(),
        problem,
    };
    let mut rows = Vec::with_capacity(table.len());
    for row in table {
        let parsed: Result<Vec<_>, _> =
            row.spellings.iter().map(|text| Ok((*text, Spelling::parse(text, row.shape)?))).collect();
        rows.push((row, parsed.map_err(|problem| fail(row, problem))?));
    }
    let spelled = rows.iter().flat_map(|(_, spellings)| spellings.iter().map(|(_, parsed)| parsed.root()));
    let names =
        btf.find(spelled).map_err(|problem| ResolveError::Btf { kernel: kernel.to_owned(), problem })?;
    let types = Types { btf, names };
    let mut offsets =
        Offsets { values: Vec::with_capacity(rows.len()), rows: Vec::with_capacity(rows.len()) };
    for (row, spellings) in &rows {
        let (value, spelling) = types.row(row, spellings).map_err(|problem| fail(row, problem))?;
        offsets.values.push(value);
        offsets.rows.push((row.name, spelling));
    }
    Ok(offsets)
}

// === impl Offsets ===

impl Offsets {
    /// The values in the order of the table, as the kernel programs want them: bytes for members and sizes.
    #[must_use]
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// What became of each row, in the order of the table.
    pub fn rows(&self) -> impl Iterator<Item = ResolvedRow> {
        let values = self.values.iter();
        self.rows.iter().zip(values).map(|(&(name, spelling), &value)| ResolvedRow { name, spelling, value })
    }

    /// Names of the optional rows that the kernel does not have.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().filter(|(_, spelling)| spelling.is_none()).map(|(name, _)| *name)
    }
}

// === impl Problem ===

impl Problem {
    fn remedy(&self) -> &'static str {
        match self {
            Self::MissingType(_) => {
                "check that the BTF is that of the running kernel; if it is, use a Nightjar release that knows \
                 this kernel"
            }
            Self::MissingField(_) => {
                "use a Nightjar release that knows this kernel, or add its spelling to the row in \
                 agent-abi/src/fields.rs"
            }
            Self::Malformed { .. } | Self::ThroughPointer { .. } => {
                "correct the row in agent-abi/src/fields.rs"
            }
            Self::Btf(_) => "check that the BTF is that of the running kernel",
            _ => {
                "a read would give wrong values: use a Nightjar release that knows this kernel, or correct the \
                 row in agent-abi/src/fields.rs"
            }
        }
    }
}

// === impl Absence ===

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(what, name) => write!(f, "there is no {what} {name}"),
            Self::Part(of, name) => write!(f, "{of} has no {name}"),
        }
    }
}

fn join(absences: &[Absence]) -> String {
    absences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

// === impl Spelling ===

impl Spelling {
    fn parse(text: &'static str, shape: Shape) -> Result<Self, Problem> {
        let (parsed, expected) = match shape {
            Shape::Number => {
                (Self::number(text), "sizeof(structure), enum(name.ENUMERATOR) or args(typedef)")
            }
            _ => (Self::member(text), "structure.member, with further members behind further dots,"),
        };
        parsed.ok_or(Problem::Malformed { spelling: text, expected })
    }

    fn member(text: &'static str) -> Option<Self> {
        let (structure, path) = text.split_once('.')?;
        text.split('.').all(is_identifier).then_some(Self::Member(structure, path))
    }

    fn number(text: &'static str) -> Option<Self> {
        let (function, argument) = text.strip_suffix(')')?.split_once('(')?;
        match function {
            "sizeof" if is_identifier(argument) => Some(Self::SizeOf(argument)),
            "args" if is_identifier(argument) => Some(Self::Parameters(argument)),
            "enum" => {
                let (name, enumerator) = argument.split_once('.')?;
                (is_identifier(name) && is_identifier(enumerator))
                    .then_some(Self::Enumerator(name, enumerator))
            }
            _ => None,
        }
    }

    /// Name of the type that it starts from.
    fn root(self) -> &'static str {
        match self {
            Self::Member(root, _)
            | Self::SizeOf(root)
            | Self::Enumerator(root, _)
            | Self::Parameters(root) => root,
        }
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The kernel's types, and those of them that spellings start from.
struct Types<'a> {
    btf: &'a Btf,
    names: Names<'static>,
}

/// The value of a spelling, or why the kernel has none.
type Answer = Result<u32, Absence>;

impl Types<'_> {
    /// The value of a row and the spelling that gave it.
    fn row(
        &self,
        row: &FieldSpec,
        spellings: &[(&'static str, Spelling)],
    ) -> Result<(u32, Option<&'static str>), Problem> {
        let mut absences = Vec::new();
        for (text, spelling) in spellings {
            match self.value(*spelling, row.shape)? {
                Ok(value) => return Ok((value, Some(text))),
                Err(absence) => absences.push(absence),
            }
        }
        if !row.required {
            return Ok((MISSING, None));
        }
        if absences.iter().all(|absence| matches!(absence, Absence::Type(..))) {
            return Err(Problem::MissingType(absences));
        }
        Err(Problem::MissingField(absences))
    }

    fn value(&self, spelling: Spelling, shape: Shape) -> Result<Answer, Problem> {
        match spelling {
            Spelling::Member(structure, path) => self.offset(structure, path, shape),
            Spelling::SizeOf(structure) => self.size(structure),
            Spelling::Enumerator(name, enumerator) => self.enumerator(name, enumerator),
            Spelling::Parameters(typedef) => self.parameters(typedef),
        }
    }

    fn offset(&self, structure: &'static str, path: &'static str, shape: Shape) -> Result<Answer, Problem> {
        let Some(mut at) = self.names.structure(structure) else {
            return Ok(Err(Absence::Type("struct", structure)));
        };
        let (mut walked, mut bits) = (structure.to_owned(), 0);
        let mut steps = path.split('.').peekable();
        while let Some(step) = steps.next() {
            let Some(member) = self.btf.member(at, step)? else {
                return Ok(Err(Absence::Part(walked, step)));
            };
            walked = format!("{walked}.{step}");
            bits += member.bit_offset;
            if steps.peek().is_some() {
                at = self.step_into(member, &walked)?;
            } else {
                self.check_shape(member, &walked, shape)?;
            }
        }
        in_range(walked, i128::from(bits / 8)).map(Ok)
    }

    /// The structure that a member in the middle of a path is.
    fn step_into(&self, member: Member, path: &str) -> Result<TypeId, Problem> {
        let ty = self.btf.underlying(member.declared)?;
        match ty.kind {
            kind if kind.has_members() => Ok(ty.id),
            Kind::Ptr => Err(Problem::ThroughPointer { member: path.to_owned() }),
            found => Err(Problem::NoMembers { member: path.to_owned(), found }),
        }
    }

    fn check_shape(&self, member: Member, path: &str, shape: Shape) -> Result<(), Problem> {
        let field = path.to_owned();
        if member.bitfield {
            return Err(Problem::Bitfield { field });
        }
        let ty = self.btf.underlying(member.declared)?;
        match (shape, ty.kind, ty.size) {
            (Shape::Pointer, Kind::Ptr, _) | (Shape::Place | Shape::Number, ..) => Ok(()),
            (Shape::Pointer, found, _) => Err(Problem::NotAPointer { field, found }),
            (
                Shape::Scalar(expected),
                Kind::Int | Kind::Enum | Kind::Enum64 | Kind::Struct | Kind::Union,
                Some(found),
            ) => {
                if found == expected {
                    Ok(())
                } else {
                    Err(Problem::WrongSize { field, found, expected })
                }
            }
            (Shape::Scalar(expected), found, _) => Err(Problem::NotANumber { field, found, expected }),
        }
    }

    fn size(&self, structure: &'static str) -> Result<Answer, Problem> {
        let Some(id) = self.names.structure(structure) else {
            return Ok(Err(Absence::Type("struct", structure)));
        };
        let size = self.btf.underlying(id)?.size.unwrap_or(0);
        in_range(format!("sizeof({structure})"), size.into()).map(Ok)
    }

    fn enumerator(&self, name: &'static str, enumerator: &'static str) -> Result<Answer, Problem> {
        let Some(id) = self.names.enumeration(name) else {
            return Ok(Err(Absence::Type("enum", name)));
        };
        match self.btf.enumerator(id, enumerator)? {
            Some(value) => in_range(format!("enum({name}.{enumerator})"), value).map(Ok),
            None => Ok(Err(Absence::Part(format!("enum {name}"), enumerator))),
        }
    }

    fn parameters(&self, typedef: &'static str) -> Result<Answer, Problem> {
        let Some(id) = self.names.typedef(typedef) else {
            return Ok(Err(Absence::Type("typedef", typedef)));
        };
        match self.btf.parameters(id)? {
            Some(count) => in_range(format!("args({typedef})"), count as i128).map(Ok),
            None => Err(Problem::NotAFunction { typedef }),
        }
    }
}

/// A value as the array of offsets holds it, where [`MISSING`] is taken.
fn in_range(spelling: String, value: i128) -> Result<u32, Problem> {
    match u32::try_from(value) {
        Ok(number) if number != MISSING => Ok(number),
        _ => Err(Problem::OutOfRange { spelling, value }),
    }
}

#[cfg(test)]
mod tests {
    use nightjar_abi::fields::{self, COUNT, TABLE};
    use proptest::prelude::*;

    use super::super::btf::fixture::{BtfBuilder, info};
    use super::*;

    const REQUIRED: bool = true;
    const OPTIONAL: bool = false;

    fn row(spellings: &'static [&'static str], shape: Shape, required: bool) -> FieldSpec {
        FieldSpec { name: "ROW", spellings, shape, required }
    }

    fn resolve_in(builder: &BtfBuilder, row: FieldSpec) -> Result<Offsets, ResolveError> {
        resolve(&Btf::parse(builder.build()).unwrap(), &[row], "5.10.0-test")
    }

    fn value_in(builder: &BtfBuilder, row: FieldSpec) -> u32 {
        resolve_in(builder, row).unwrap().values()[0]
    }

    fn problem_in(builder: &BtfBuilder, row: FieldSpec) -> Problem {
        match resolve_in(builder, row).unwrap_err() {
            ResolveError::Row { problem, .. } => problem,
            error @ ResolveError::Btf { .. } => panic!("{error}"),
        }
    }

    /// A small kernel: `struct task_struct { int pid; int tgid; struct cred *cred; struct sched_entity se; }`.
    fn small_kernel() -> BtfBuilder {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("int", 4);
        let long = kernel.int("long unsigned int", 8);
        let cred = kernel.structure("cred", 8, &[("usage", long, 0), ("uid", int, 64)]);
        let cred_pointer = kernel.pointer(cred);
        let entity = kernel.structure("sched_entity", 16, &[("load", long, 0), ("runtime", long, 64)]);
        kernel.structure(
            "task_struct",
            32,
            &[("pid", int, 0), ("tgid", int, 32), ("cred", cred_pointer, 64), ("se", entity, 128)],
        );
        kernel
    }

    #[test]
    fn a_member_gives_its_offset_in_bytes() {
        let row = row(&["task_struct.tgid"], Shape::Scalar(4), REQUIRED);
        assert_eq!(value_in(&small_kernel(), row), 4);
    }

    #[test]
    fn offsets_along_a_path_add_up() {
        let row = row(&["task_struct.se.runtime"], Shape::Scalar(8), REQUIRED);
        assert_eq!(value_in(&small_kernel(), row), 24);
    }

    #[test]
    fn a_renamed_field_is_found_by_its_older_spelling() {
        let row = row(&["task_struct.thread_group_id", "task_struct.tgid"], Shape::Scalar(4), REQUIRED);
        let offsets = resolve_in(&small_kernel(), row).unwrap();
        let resolved: Vec<_> = offsets.rows().collect();
        assert_eq!(resolved, [ResolvedRow { name: "ROW", spelling: Some("task_struct.tgid"), value: 4 }]);
    }

    #[test]
    fn the_newest_spelling_is_taken_where_the_kernel_has_both() {
        let row = row(&["task_struct.tgid", "task_struct.pid"], Shape::Scalar(4), REQUIRED);
        assert_eq!(value_in(&small_kernel(), row), 4);
    }

    #[test]
    fn an_absent_optional_field_is_missing_and_reported() {
        let row = row(&["task_struct.loginuid"], Shape::Scalar(4), OPTIONAL);
        let offsets = resolve_in(&small_kernel(), row).unwrap();
        assert_eq!(offsets.values(), [MISSING]);
        assert_eq!(offsets.missing().collect::<Vec<_>>(), ["ROW"]);
        assert_eq!(offsets.rows().next().unwrap().spelling, None);
    }

    #[test]
    fn an_optional_field_of_an_absent_structure_is_missing() {
        let row = row(&["cgroup.kn"], Shape::Pointer, OPTIONAL);
        assert_eq!(value_in(&small_kernel(), row), MISSING);
    }

    #[test]
    fn an_absent_required_field_is_an_error_that_says_what_was_tried() {
        let row = row(&["task_struct.start_boottime", "task_struct.se.start"], Shape::Scalar(8), REQUIRED);
        assert_eq!(
            resolve_in(&small_kernel(), row).unwrap_err().to_string(),
            "kernel field ROW: task_struct has no start_boottime, task_struct.se has no start (kernel \
             5.10.0-test, spellings: task_struct.start_boottime, task_struct.se.start); use a Nightjar release \
             that knows this kernel, or add its spelling to the row in agent-abi/src/fields.rs"
        );
    }

    #[test]
    fn an_absent_structure_is_an_error_that_names_it() {
        let row = row(&["nsproxy.uts_ns"], Shape::Pointer, REQUIRED);
        assert_eq!(
            resolve_in(&small_kernel(), row).unwrap_err().to_string(),
            "kernel field ROW: there is no struct nsproxy (kernel 5.10.0-test, spellings: nsproxy.uts_ns); check \
             that the BTF is that of the running kernel; if it is, use a Nightjar release that knows this kernel"
        );
    }

    #[test]
    fn a_forward_declaration_is_not_the_structure() {
        let mut kernel = BtfBuilder::new();
        kernel.raw("nsproxy", info(Kind::Fwd, 0), 0, &[]);
        let problem = problem_in(&kernel, row(&["nsproxy.uts_ns"], Shape::Pointer, REQUIRED));
        assert!(matches!(problem, Problem::MissingType(_)), "{problem}");
    }

    #[test]
    fn a_field_of_another_size_is_an_error_even_when_optional() {
        for need in [REQUIRED, OPTIONAL] {
            let problem = problem_in(&small_kernel(), row(&["task_struct.tgid"], Shape::Scalar(8), need));
            assert_eq!(problem.to_string(), "task_struct.tgid is 4 bytes in this kernel, 8 expected");
            let problem = problem_in(&small_kernel(), row(&["task_struct.tgid"], Shape::Scalar(2), need));
            assert_eq!(problem.to_string(), "task_struct.tgid is 4 bytes in this kernel, 2 expected");
        }
    }

    #[test]
    fn a_field_of_another_size_does_not_fall_back_to_an_older_spelling() {
        let row = row(&["task_struct.tgid", "task_struct.se.runtime"], Shape::Scalar(8), OPTIONAL);
        let problem = problem_in(&small_kernel(), row);
        assert!(matches!(problem, Problem::WrongSize { .. }), "{problem}");
    }

    #[test]
    fn a_number_where_a_pointer_is_expected_is_an_error() {
        let problem = problem_in(&small_kernel(), row(&["task_struct.tgid"], Shape::Pointer, OPTIONAL));
        assert_eq!(problem.to_string(), "task_struct.tgid is an integer in this kernel, a pointer expected");
    }

    #[test]
    fn a_pointer_where_a_number_is_expected_is_an_error() {
        let problem = problem_in(&small_kernel(), row(&["task_struct.cred"], Shape::Scalar(8), REQUIRED));
        assert_eq!(
            problem.to_string(),
            "task_struct.cred is a pointer in this kernel, a number of 8 bytes expected"
        );
    }

    #[test]
    fn pointers_on_the_way_are_not_followed() {
        let problem = problem_in(&small_kernel(), row(&["task_struct.cred.uid"], Shape::Scalar(4), REQUIRED));
        assert_eq!(
            problem.to_string(),
            "task_struct.cred is a pointer in this kernel and cannot be a step on the way to a field"
        );
    }

    #[test]
    fn a_number_on_the_way_has_no_members() {
        let problem = problem_in(&small_kernel(), row(&["task_struct.pid.nr"], Shape::Scalar(4), REQUIRED));
        assert_eq!(problem.to_string(), "task_struct.pid is an integer in this kernel and has no members");
    }

    #[test]
    fn any_type_will_do_where_only_the_place_is_wanted() {
        let mut kernel = BtfBuilder::new();
        let char = kernel.int("char", 1);
        let comm = kernel.array(char, 16);
        kernel.structure("task_struct", 24, &[("comm", comm, 64)]);
        assert_eq!(value_in(&kernel, row(&["task_struct.comm"], Shape::Place, REQUIRED)), 8);
    }

    #[test]
    fn an_array_is_not_a_number() {
        let mut kernel = BtfBuilder::new();
        let char = kernel.int("char", 1);
        let comm = kernel.array(char, 4);
        kernel.structure("task_struct", 4, &[("comm", comm, 0)]);
        let problem = problem_in(&kernel, row(&["task_struct.comm"], Shape::Scalar(4), REQUIRED));
        assert_eq!(
            problem.to_string(),
            "task_struct.comm is an array in this kernel, a number of 4 bytes expected"
        );
    }

    /// `struct file { int a; union { int b; struct { int c; const path_t f_path; }; }; }`, the union at 8.
    #[test]
    fn anonymous_unions_and_structures_are_looked_through() {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("int", 4);
        let pointer = kernel.pointer(0);
        let path = kernel.structure("path", 16, &[("mnt", pointer, 0), ("dentry", pointer, 64)]);
        let path = kernel.typedef("path_t", path);
        let path = kernel.qualified(Kind::Const, path);
        let inner = kernel.structure("", 24, &[("c", int, 0), ("f_path", path, 64)]);
        let outer = kernel.union("", 24, &[("b", int, 0), ("", inner, 0)]);
        kernel.structure("file", 32, &[("a", int, 0), ("", outer, 64)]);
        let dentry = row(&["file.f_path.dentry"], Shape::Pointer, REQUIRED);
        assert_eq!(value_in(&kernel, dentry), 8 + 8 + 8);
    }

    #[test]
    fn a_typedef_of_a_structure_counts_as_a_number_of_its_size() {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("unsigned int", 4);
        let words = kernel.array(int, 2);
        let caps = kernel.structure("kernel_cap_struct", 8, &[("cap", words, 0)]);
        let caps = kernel.typedef("kernel_cap_t", caps);
        kernel.structure("cred", 16, &[("cap_bset", caps, 64)]);
        assert_eq!(value_in(&kernel, row(&["cred.cap_bset"], Shape::Scalar(8), REQUIRED)), 8);
    }

    #[test]
    fn a_tagged_pointer_is_a_pointer() {
        let mut kernel = BtfBuilder::new();
        let cred = kernel.structure("cred", 8, &[]);
        let tagged = kernel.raw("rcu", info(Kind::TypeTag, 0), cred, &[]);
        let pointer = kernel.pointer(tagged);
        let tagged_pointer = kernel.raw("user", info(Kind::TypeTag, 0), pointer, &[]);
        kernel.structure("task_struct", 16, &[("cred", pointer, 0), ("tagged", tagged_pointer, 64)]);
        assert_eq!(value_in(&kernel, row(&["task_struct.cred"], Shape::Pointer, REQUIRED)), 0);
        assert_eq!(value_in(&kernel, row(&["task_struct.tagged"], Shape::Pointer, REQUIRED)), 8);
    }

    #[test]
    fn a_bitfield_is_refused_as_a_bitfield_even_when_optional() {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("unsigned int", 4);
        kernel.structure_with_bits("task_struct", 8, &[(("pid", int, 0), 0), (("in_execve", int, 32), 1)]);
        for shape in [Shape::Scalar(4), Shape::Pointer, Shape::Place] {
            assert_eq!(
                problem_in(&kernel, row(&["task_struct.in_execve"], shape, OPTIONAL)).to_string(),
                "task_struct.in_execve is a bitfield in this kernel, which has no byte offset"
            );
        }
    }

    #[test]
    fn a_whole_member_beside_bitfields_is_read_without_its_bit_count() {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("unsigned int", 4);
        kernel.structure_with_bits("task_struct", 8, &[(("in_execve", int, 0), 1), (("pid", int, 32), 0)]);
        assert_eq!(value_in(&kernel, row(&["task_struct.pid"], Shape::Scalar(4), REQUIRED)), 4);
    }

    #[test]
    fn a_bitfield_told_by_its_integer_is_refused() {
        let mut kernel = BtfBuilder::new();
        let three_bits = kernel.int_of_bits("unsigned int", 4, 3);
        kernel.structure("sock", 4, &[("state", three_bits, 0)]);
        let problem = problem_in(&kernel, row(&["sock.state"], Shape::Scalar(4), REQUIRED));
        assert!(matches!(problem, Problem::Bitfield { .. }), "{problem}");
    }

    #[test]
    fn a_member_between_bytes_is_refused() {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("unsigned int", 4);
        kernel.structure("sock", 8, &[("state", int, 3)]);
        let problem = problem_in(&kernel, row(&["sock.state"], Shape::Scalar(4), REQUIRED));
        assert!(matches!(problem, Problem::Bitfield { .. }), "{problem}");
    }

    #[test]
    fn a_structure_may_be_as_long_as_bit_offsets_reach() {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("int", 4);
        let inner = kernel.structure("", 0x2000_0000, &[("last", int, 0xffff_ffe0)]);
        kernel.structure("huge", 0x3000_0000, &[("", inner, 0xffff_ffe0)]);
        let last = row(&["huge.last"], Shape::Scalar(4), REQUIRED);
        assert_eq!(value_in(&kernel, last), 2 * 0x1fff_fffc);
    }

    #[test]
    fn an_offset_that_would_read_as_missing_is_refused() {
        let mut kernel = BtfBuilder::new();
        let byte = kernel.int("char", 1);
        let mut inner = kernel.structure("", 1, &[("last", byte, 7 * 8)]);
        for _ in 0..8 {
            inner = kernel.structure("", 1, &[("", inner, 0xffff_fff8)]);
        }
        kernel.structure("huge", 1, &[("", inner, 0)]);
        let problem = problem_in(&kernel, row(&["huge.last"], Shape::Scalar(1), REQUIRED));
        assert_eq!(
            problem.to_string(),
            "huge.last is 4294967295 in this kernel, a number from 0 to 4294967294 expected"
        );
    }

    #[test]
    fn sizeof_gives_bytes() {
        let row = row(&["sizeof(sched_entity)"], Shape::Number, REQUIRED);
        assert_eq!(value_in(&small_kernel(), row), 16);
    }

    #[test]
    fn enum_gives_the_value_of_the_first_enumerator_that_exists() {
        let mut kernel = BtfBuilder::new();
        kernel.enumeration("cgroup_subsys_id", &[("cpu_cgrp_id", 1), ("pids_cgrp_id", 9)]);
        let row = row(
            &["enum(cgroup_subsys_id.memory_cgrp_id)", "enum(cgroup_subsys_id.pids_cgrp_id)"],
            Shape::Number,
            REQUIRED,
        );
        assert_eq!(value_in(&kernel, row), 9);
    }

    #[test]
    fn an_absent_enumerator_is_named() {
        let mut kernel = BtfBuilder::new();
        kernel.enumeration("cgroup_subsys_id", &[]);
        let problem = problem_in(&kernel, row(&["enum(cgroup_subsys_id.x)"], Shape::Number, REQUIRED));
        assert_eq!(problem.to_string(), "enum cgroup_subsys_id has no x");
    }

    #[test]
    fn a_64_bit_enumeration_serves_while_its_values_fit() {
        let mut kernel = BtfBuilder::new();
        kernel.enumeration64("flags", &[("LOW", 7), ("HIGH", 1 << 32)]);
        assert_eq!(value_in(&kernel, row(&["enum(flags.LOW)"], Shape::Number, REQUIRED)), 7);
        let problem = problem_in(&kernel, row(&["enum(flags.HIGH)"], Shape::Number, REQUIRED));
        assert_eq!(
            problem.to_string(),
            "enum(flags.HIGH) is 4294967296 in this kernel, a number from 0 to 4294967294 expected"
        );
    }

    #[test]
    fn args_counts_the_context_too() {
        let mut kernel = small_kernel();
        let context = kernel.pointer(0);
        let bool = kernel.int("_Bool", 1);
        let function = kernel.function(&[context, context, bool]);
        let pointer = kernel.pointer(function);
        kernel.typedef("btf_trace_exit", pointer);
        assert_eq!(value_in(&kernel, row(&["args(btf_trace_exit)"], Shape::Number, REQUIRED)), 3);
    }

    #[test]
    fn args_of_a_typedef_that_is_no_function_is_an_error() {
        let mut kernel = BtfBuilder::new();
        let int = kernel.int("int", 4);
        kernel.typedef("pid_t", int);
        let problem = problem_in(&kernel, row(&["args(pid_t)"], Shape::Number, REQUIRED));
        assert_eq!(problem.to_string(), "typedef pid_t is not a pointer to a function in this kernel");
    }

    #[test]
    fn of_two_structures_with_one_name_the_first_is_taken() {
        let mut kernel = small_kernel();
        kernel.structure("task_struct", 8, &[]);
        assert_eq!(value_in(&kernel, row(&["sizeof(task_struct)"], Shape::Number, REQUIRED)), 32);
    }

    #[test]
    fn malformed_paths_are_refused_even_where_an_earlier_spelling_resolves() {
        const ROWS: [&[&str]; 8] = [
            &["task_struct.tgid", ""],
            &["task_struct.tgid", "task_struct"],
            &["task_struct.tgid", "task_struct."],
            &["task_struct.tgid", ".tgid"],
            &["task_struct.tgid", "task_struct..tgid"],
            &["task_struct.tgid", "task_struct.comm[4]"],
            &["task_struct.tgid", "task_struct.4"],
            &["task_struct.tgid", "sizeof(task_struct)"],
        ];
        for spellings in ROWS {
            let problem = problem_in(&small_kernel(), row(spellings, Shape::Scalar(4), OPTIONAL));
            assert!(matches!(problem, Problem::Malformed { .. }), "{spellings:?}: {problem}");
        }
    }

    #[test]
    fn malformed_numbers_are_refused_even_where_an_earlier_spelling_resolves() {
        const ROWS: [&[&str]; 7] = [
            &["sizeof(cred)", "sizeof(cred"],
            &["sizeof(cred)", "sizeof()"],
            &["sizeof(cred)", "sizeof(cred.uid)"],
            &["sizeof(cred)", "enum(cred)"],
            &["sizeof(cred)", "enum(a.b.c)"],
            &["sizeof(cred)", "alignof(cred)"],
            &["sizeof(cred)", "cred.uid"],
        ];
        for spellings in ROWS {
            let problem = problem_in(&small_kernel(), row(spellings, Shape::Number, OPTIONAL));
            assert!(matches!(problem, Problem::Malformed { .. }), "{spellings:?}: {problem}");
        }
    }

    #[test]
    fn damaged_btf_is_told_with_the_row_that_met_it() {
        let mut kernel = BtfBuilder::new();
        kernel.structure("file", 8, &[("f_inode", 99, 0)]);
        let error = resolve_in(&kernel, row(&["file.f_inode"], Shape::Pointer, OPTIONAL)).unwrap_err();
        assert!(
            error.to_string().starts_with("kernel field ROW: BTF refers to type 99, which does not exist"),
            "{error}"
        );
    }

    // --- the running kernel ---

    /// The table resolved against the running kernel; `None`, with the reason printed, where there is no BTF.
    fn running_kernel() -> Option<Offsets> {
        let btf = match Btf::from_kernel() {
            Ok(btf) => btf,
            Err(BtfError::Read { error, .. }) if std::env::var("CI").as_deref() != Ok("true") => {
                eprintln!("skipped: no kernel BTF: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        Some(resolve(&btf, TABLE, "running").unwrap_or_else(|error| panic!("{error}")))
    }

    macro_rules! value {
        ($offsets:expr, $row:ident) => {
            $offsets.values()[fields::$row.row()]
        };
    }

    #[test]
    fn the_whole_table_resolves_against_the_running_kernel() {
        let Some(offsets) = running_kernel() else { return };
        assert_eq!(offsets.values().len(), COUNT);
        for (spec, resolved) in TABLE.iter().zip(offsets.rows()) {
            assert_eq!(spec.name, resolved.name);
            assert_eq!(resolved.spelling.is_none(), resolved.value == MISSING, "{resolved:?}");
            assert!(!spec.required || resolved.spelling.is_some(), "{resolved:?}");
        }
    }

    /// The layout of `struct pt_regs` is ABI: <https://github.com/torvalds/linux/blob/v6.12/arch/x86/include/uapi/asm/ptrace.h>
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn registers_of_the_running_kernel_lie_where_the_abi_puts_them() {
        let Some(offsets) = running_kernel() else { return };
        assert_eq!(value!(offsets, REGISTERS_ARG1), 14 * 8);
        assert_eq!(value!(offsets, REGISTERS_ARG2), 13 * 8);
        assert_eq!(value!(offsets, REGISTERS_SIZE), 21 * 8);
    }

    /// `struct upid` and `struct path` are not randomized, and 5.8 to 6.18 have them alike.
    #[test]
    fn small_structures_of_the_running_kernel_are_as_its_headers_have_them() {
        let Some(offsets) = running_kernel() else { return };
        assert_eq!(value!(offsets, UPID_SIZE), 16);
        assert_eq!(value!(offsets, UPID_NR), 0);
        assert_eq!(value!(offsets, UPID_NS), 8);
        assert_eq!(value!(offsets, FS_PWD_DENTRY) - value!(offsets, FS_PWD_MNT), 8);
        assert_eq!(value!(offsets, FILE_DENTRY) - value!(offsets, FILE_MNT), 8);
        assert!(matches!(value!(offsets, EXIT_ARGS), 2 | 3));
    }

    /// `struct qstr { union { struct { u32 hash; u32 len; }; u64 hash_len; }; const char *name; }`
    #[test]
    #[cfg(target_endian = "little")]
    fn the_name_of_a_dentry_of_the_running_kernel_is_found_through_its_anonymous_union() {
        let Some(offsets) = running_kernel() else { return };
        assert_eq!(value!(offsets, DENTRY_NAME) - value!(offsets, DENTRY_NAME_LEN), 4);
    }

    #[test]
    fn fields_of_the_running_kernel_that_stand_together_are_found_together() {
        let Some(offsets) = running_kernel() else { return };
        let ids = [
            value!(offsets, CRED_UID),
            value!(offsets, CRED_GID),
            value!(offsets, CRED_SUID),
            value!(offsets, CRED_SGID),
            value!(offsets, CRED_EUID),
            value!(offsets, CRED_EGID),
            value!(offsets, CRED_FSUID),
            value!(offsets, CRED_FSGID),
        ];
        let mut sorted = ids;
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] == 4), "{ids:?}");
        assert_eq!(value!(offsets, TASK_TGID).abs_diff(value!(offsets, TASK_PID)), 4);
        assert_eq!(value!(offsets, MM_ARG_END).abs_diff(value!(offsets, MM_ARG_START)), 8);
    }

    // --- any bytes ---

    const ANY: [FieldSpec; 6] = [
        FieldSpec { name: "A", spellings: &["a.b.a"], shape: Shape::Scalar(4), required: false },
        FieldSpec { name: "B", spellings: &["b.a"], shape: Shape::Pointer, required: false },
        FieldSpec { name: "C", spellings: &["a.b"], shape: Shape::Place, required: false },
        FieldSpec { name: "D", spellings: &["sizeof(a)"], shape: Shape::Number, required: false },
        FieldSpec { name: "E", spellings: &["enum(a.b)"], shape: Shape::Number, required: false },
        FieldSpec { name: "F", spellings: &["args(a)"], shape: Shape::Number, required: false },
    ];

    const OF_SMALL_KERNEL: [FieldSpec; 4] = [
        FieldSpec { name: "A", spellings: &["task_struct.tgid"], shape: Shape::Scalar(4), required: true },
        FieldSpec { name: "B", spellings: &["task_struct.cred"], shape: Shape::Pointer, required: true },
        FieldSpec { name: "C", spellings: &["task_struct.se.load"], shape: Shape::Place, required: true },
        FieldSpec { name: "D", spellings: &["sizeof(cred)"], shape: Shape::Number, required: true },
    ];

    /// Each row for itself, so that an error in one does not hide the others.
    fn resolve_any(data: Vec<u8>, table: &[FieldSpec]) {
        if let Ok(btf) = Btf::parse(data) {
            for row in table {
                let _answer = resolve(&btf, &[*row], "any").map_err(|error| error.to_string());
            }
        }
    }

    /// A type of any kind that refers to any other: kind, count, flag, and the words behind.
    fn any_type() -> impl Strategy<Value = (u32, u32, bool, Vec<u32>)> {
        (1..=19u32, 0..4u32, any::<bool>(), prop::collection::vec(0..12u32, 14))
    }

    proptest! {
        #[test]
        fn random_bytes_give_an_answer_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..1024),
        ) {
            resolve_any(bytes.clone(), &ANY);
            let mut behind_a_header = small_kernel().build();
            behind_a_header.truncate(24);
            behind_a_header.extend(bytes);
            resolve_any(behind_a_header, &ANY);
        }

        #[test]
        fn damage_to_a_valid_file_gives_an_answer_or_an_error(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            end in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut data = small_kernel().build();
            for (at, byte) in changes {
                let at = at.index(data.len());
                data[at] = byte;
            }
            if cut {
                data.truncate(end.index(data.len()));
            }
            resolve_any(data, &OF_SMALL_KERNEL);
        }

        #[test]
        fn any_graph_of_types_gives_an_answer_or_an_error(
            types in prop::collection::vec(any_type(), 1..12),
        ) {
            let mut builder = BtfBuilder::new();
            builder.strings.extend(b"a\0b\0");
            let name = |word: u32| [0, 0, 1, 3][word as usize % 4];
            for (number, count, flag, mut words) in types {
                let members = matches!(number, 4 | 5);
                if members {
                    for member in words[2..].chunks_exact_mut(3) {
                        member[0] = name(member[0]);
                        member[2] *= 8;
                    }
                }
                let trailing = match number {
                    1 | 14 | 17 => 1,
                    3 => 3,
                    4 | 5 | 15 | 19 => 3 * count as usize,
                    6 | 13 => 2 * count as usize,
                    _ => 0,
                };
                builder.types.extend([
                    name(words[0]),
                    number << 24 | count | u32::from(flag) << 31,
                    words[1],
                ]);
                builder.types.extend(&words[2..2 + trailing]);
            }
            resolve_any(builder.build(), &ANY);
        }
    }
}
