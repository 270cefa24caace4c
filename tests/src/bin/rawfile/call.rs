//! The system calls that an act can be made by, and their numbers.

use clap::ValueEnum;

/// Which table of system calls a number is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// That of this program.
    Native,
    /// That of 32-bit x86 programs.
    I386,
}

macro_rules! calls {
    ($($name:ident $text:literal $x86_64:expr, $i386:expr, $generic:expr;)*) => {
        /// A system call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum Call {
            $(#[value(name = $text)] $name,)*
        }

        impl Call {
            /// The kernel's name of it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Its numbers on x86-64, for 32-bit x86 programs, and on the newer architectures.
            fn numbers(self) -> [Option<u16>; 3] {
                match self { $(Self::$name => [$x86_64.into(), $i386.into(), $generic.into()],)* }
            }
        }
    };
}

// Sources: https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_64.tbl,
// https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_32.tbl,
// https://github.com/torvalds/linux/blob/v6.12/include/uapi/asm-generic/unistd.h
calls! {
    // name                                x86-64  i386  generic
    Write "write"                           1,      4,    64;
    Open "open"                             2,      5,    None;
    Close "close"                           3,      6,    57;
    Pwrite64 "pwrite64"                     18,     181,  68;
    Getpid "getpid"                         39,     20,   172;
    Truncate "truncate"                     76,     92,   45;
    Ftruncate "ftruncate"                   77,     93,   46;
    Rename "rename"                         82,     38,   None;
    Mkdir "mkdir"                           83,     39,   None;
    Rmdir "rmdir"                           84,     40,   None;
    Creat "creat"                           85,     8,    None;
    Link "link"                             86,     9,    None;
    Unlink "unlink"                         87,     10,   None;
    Symlink "symlink"                       88,     83,   None;
    Chmod "chmod"                           90,     15,   None;
    Fchmod "fchmod"                         91,     94,   52;
    Chown "chown"                           92,     182,  None;
    Fchown "fchown"                         93,     95,   55;
    Lchown "lchown"                         94,     16,   None;
    Mknod "mknod"                           133,    14,   None;
    Setxattr "setxattr"                     188,    226,  5;
    Lsetxattr "lsetxattr"                   189,    227,  6;
    Fsetxattr "fsetxattr"                   190,    228,  7;
    Removexattr "removexattr"               197,    235,  14;
    Lremovexattr "lremovexattr"             198,    236,  15;
    Fremovexattr "fremovexattr"             199,    237,  16;
    Openat "openat"                         257,    295,  56;
    Mkdirat "mkdirat"                       258,    296,  34;
    Mknodat "mknodat"                       259,    297,  33;
    Fchownat "fchownat"                     260,    298,  54;
    Unlinkat "unlinkat"                     263,    301,  35;
    Renameat "renameat"                     264,    302,  38;
    Linkat "linkat"                         265,    303,  37;
    Symlinkat "symlinkat"                   266,    304,  36;
    Fchmodat "fchmodat"                     268,    306,  53;
    Utimensat "utimensat"                   280,    320,  88;
    Fallocate "fallocate"                   285,    324,  47;
    NameToHandleAt "name_to_handle_at"      303,    341,  264;
    OpenByHandleAt "open_by_handle_at"      304,    342,  265;
    Renameat2 "renameat2"                   316,    353,  276;
    Openat2 "openat2"                       437,    437,  437;
    Fchmodat2 "fchmodat2"                   452,    452,  452;
    // Only 32-bit programs have these: for lengths and users of more bits than there were at first.
    Truncate64 "truncate64"                 None,   193,  None;
    Ftruncate64 "ftruncate64"               None,   194,  None;
    Lchown32 "lchown32"                     None,   198,  None;
    Fchown32 "fchown32"                     None,   207,  None;
    Chown32 "chown32"                       None,   212,  None;
}

// === impl Call ===

impl Call {
    /// Its number, where there is such a call.
    pub fn number(self, abi: Abi) -> Option<u16> {
        let [x86_64, i386, generic] = self.numbers();
        match abi {
            Abi::I386 => i386,
            Abi::Native if cfg!(target_arch = "x86_64") => x86_64,
            Abi::Native => generic,
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_c_library() {
        let known = [
            (Call::Write, libc::SYS_write),
            (Call::Open, libc::SYS_open),
            (Call::Close, libc::SYS_close),
            (Call::Pwrite64, libc::SYS_pwrite64),
            (Call::Getpid, libc::SYS_getpid),
            (Call::Truncate, libc::SYS_truncate),
            (Call::Ftruncate, libc::SYS_ftruncate),
            (Call::Rename, libc::SYS_rename),
            (Call::Mkdir, libc::SYS_mkdir),
            (Call::Rmdir, libc::SYS_rmdir),
            (Call::Creat, libc::SYS_creat),
            (Call::Link, libc::SYS_link),
            (Call::Unlink, libc::SYS_unlink),
            (Call::Symlink, libc::SYS_symlink),
            (Call::Chmod, libc::SYS_chmod),
            (Call::Fchmod, libc::SYS_fchmod),
            (Call::Chown, libc::SYS_chown),
            (Call::Fchown, libc::SYS_fchown),
            (Call::Lchown, libc::SYS_lchown),
            (Call::Mknod, libc::SYS_mknod),
            (Call::Setxattr, libc::SYS_setxattr),
            (Call::Lsetxattr, libc::SYS_lsetxattr),
            (Call::Fsetxattr, libc::SYS_fsetxattr),
            (Call::Removexattr, libc::SYS_removexattr),
            (Call::Lremovexattr, libc::SYS_lremovexattr),
            (Call::Fremovexattr, libc::SYS_fremovexattr),
            (Call::Openat, libc::SYS_openat),
            (Call::Mkdirat, libc::SYS_mkdirat),
            (Call::Mknodat, libc::SYS_mknodat),
            (Call::Fchownat, libc::SYS_fchownat),
            (Call::Unlinkat, libc::SYS_unlinkat),
            (Call::Renameat, libc::SYS_renameat),
            (Call::Linkat, libc::SYS_linkat),
            (Call::Symlinkat, libc::SYS_symlinkat),
            (Call::Fchmodat, libc::SYS_fchmodat),
            (Call::Utimensat, libc::SYS_utimensat),
            (Call::Fallocate, libc::SYS_fallocate),
            (Call::NameToHandleAt, libc::SYS_name_to_handle_at),
            (Call::OpenByHandleAt, libc::SYS_open_by_handle_at),
            (Call::Renameat2, libc::SYS_renameat2),
            (Call::Openat2, libc::SYS_openat2),
            (Call::Fchmodat2, libc::SYS_fchmodat2),
        ];
        for (call, number) in known {
            assert_eq!(call.number(Abi::Native).map(i64::from), Some(number), "{}", call.name());
        }
        let native = Call::value_variants().iter().filter(|call| call.number(Abi::Native).is_some());
        assert_eq!(native.count(), known.len());
    }
}
