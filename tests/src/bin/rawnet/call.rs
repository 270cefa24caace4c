//! The system calls of sockets, and their numbers.

use clap::ValueEnum;

macro_rules! calls {
    ($($name:ident $text:literal $x86_64:expr, $i386:expr, $socketcall:expr, $generic:expr;)*) => {
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

            /// Its numbers on x86-64, for 32-bit x86 programs, there as a number of `socketcall`, and on the newer
            /// architectures.
            fn numbers(self) -> [Option<u16>; 4] {
                match self { $(Self::$name =>
                    [$x86_64.into(), $i386.into(), $socketcall.into(), $generic.into()],)* }
            }
        }
    };
}

// Sources: https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_64.tbl,
// https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_32.tbl,
// https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/net.h,
// https://github.com/torvalds/linux/blob/v6.12/include/uapi/asm-generic/unistd.h
calls! {
    // name                  x86-64  i386  socketcall  generic
    Read "read"              0,      3,    None,       63;
    Write "write"            1,      4,    None,       64;
    Close "close"            3,      6,    None,       57;
    Socket "socket"          41,     359,  1,          198;
    Connect "connect"        42,     362,  3,          203;
    Accept "accept"          43,     None, 5,          202;
    Sendto "sendto"          44,     369,  11,         206;
    Sendmsg "sendmsg"        46,     370,  16,         211;
    Shutdown "shutdown"      48,     373,  13,         210;
    Bind "bind"              49,     361,  2,          200;
    Listen "listen"          50,     363,  4,          201;
    Accept4 "accept4"        288,    364,  18,         242;
    Sendmmsg "sendmmsg"      307,    345,  20,         269;
}

/// `socketcall`, which only 32-bit programs have.
pub const SOCKETCALL: u16 = 102;

// === impl Call ===

impl Call {
    /// Its number for this program.
    pub fn native(self) -> Option<u16> {
        let [x86_64, _, _, generic] = self.numbers();
        if cfg!(target_arch = "x86_64") { x86_64 } else { generic }
    }

    /// Its number for 32-bit x86 programs.
    pub fn i386(self) -> Option<u16> {
        self.numbers()[1]
    }

    /// Its number as a part of `socketcall`.
    pub fn socketcall(self) -> Option<u16> {
        self.numbers()[2]
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_c_library() {
        let known = [
            (Call::Read, libc::SYS_read),
            (Call::Write, libc::SYS_write),
            (Call::Close, libc::SYS_close),
            (Call::Socket, libc::SYS_socket),
            (Call::Connect, libc::SYS_connect),
            (Call::Accept, libc::SYS_accept),
            (Call::Sendto, libc::SYS_sendto),
            (Call::Sendmsg, libc::SYS_sendmsg),
            (Call::Shutdown, libc::SYS_shutdown),
            (Call::Bind, libc::SYS_bind),
            (Call::Listen, libc::SYS_listen),
            (Call::Accept4, libc::SYS_accept4),
            (Call::Sendmmsg, libc::SYS_sendmmsg),
        ];
        for (call, number) in known {
            assert_eq!(call.native().map(i64::from), Some(number), "{}", call.name());
        }
        assert_eq!(known.len(), Call::value_variants().len());
    }
}
