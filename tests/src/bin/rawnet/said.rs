//! What the program says: one line of JSON for each act, and why it ended.

use std::{
    fmt,
    io::{self, Write as _},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use rustix::{io::Errno, process::getpid, thread::gettid};
use serde_json::{Map, Value, json};

/// A line about one act.
#[derive(Debug, Clone)]
pub struct Line(Map<String, Value>);

/// The kernel lacks what was asked for; nothing was done.
#[derive(Debug)]
pub struct Skipped(pub String);

/// When something began.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    at: Instant,
    wall: SystemTime,
}

/// Names of the errors that calls on sockets give.
const ERRORS: &[(&str, Errno)] = &[
    ("EPERM", Errno::PERM),
    ("ENOENT", Errno::NOENT),
    ("EINTR", Errno::INTR),
    ("EBADF", Errno::BADF),
    ("EAGAIN", Errno::AGAIN),
    ("EACCES", Errno::ACCESS),
    ("EFAULT", Errno::FAULT),
    ("EINVAL", Errno::INVAL),
    ("EPIPE", Errno::PIPE),
    ("ENOSYS", Errno::NOSYS),
    ("ENOTSOCK", Errno::NOTSOCK),
    ("EDESTADDRREQ", Errno::DESTADDRREQ),
    ("EMSGSIZE", Errno::MSGSIZE),
    ("EPROTOTYPE", Errno::PROTOTYPE),
    ("EPROTONOSUPPORT", Errno::PROTONOSUPPORT),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("EAFNOSUPPORT", Errno::AFNOSUPPORT),
    ("EADDRINUSE", Errno::ADDRINUSE),
    ("EADDRNOTAVAIL", Errno::ADDRNOTAVAIL),
    ("ENETDOWN", Errno::NETDOWN),
    ("ENETUNREACH", Errno::NETUNREACH),
    ("ECONNABORTED", Errno::CONNABORTED),
    ("ECONNRESET", Errno::CONNRESET),
    ("ENOBUFS", Errno::NOBUFS),
    ("EISCONN", Errno::ISCONN),
    ("ENOTCONN", Errno::NOTCONN),
    ("ETIMEDOUT", Errno::TIMEDOUT),
    ("ECONNREFUSED", Errno::CONNREFUSED),
    ("EHOSTUNREACH", Errno::HOSTUNREACH),
    ("EALREADY", Errno::ALREADY),
    ("EINPROGRESS", Errno::INPROGRESS),
];

/// The error of this name.
pub fn errno_of(name: &str) -> Result<Errno, String> {
    let row = ERRORS.iter().find(|(known, _)| *known == name);
    row.map(|(_, errno)| *errno).ok_or_else(|| format!("{name} is no error of sockets; see errno(3)"))
}

/// The name of this error, or its number.
pub fn name_of(errno: Errno) -> String {
    let row = ERRORS.iter().find(|(_, known)| *known == errno);
    row.map_or_else(|| errno.raw_os_error().to_string(), |(name, _)| (*name).to_owned())
}

/// Waits for a line on standard input, or its end.
pub fn await_line() -> Result<()> {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Prints one line at once: whoever reads may wait for it.
pub fn say(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

// === impl Line ===

impl Line {
    /// An act of this thread.
    pub fn new(act: &str) -> Self {
        Self(Map::new())
            .with("act", act)
            .with("pid", getpid().as_raw_nonzero().get())
            .with("tid", gettid().as_raw_nonzero().get())
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// All fields of an object.
    pub fn all(mut self, fields: Value) -> Self {
        if let Value::Object(fields) = fields {
            self.0.extend(fields);
        }
        self
    }

    /// When it was done: wall clock before and after in nanoseconds since 1970, and how long it took.
    pub fn since(self, began: Moment) -> Self {
        self.with("before_ns", began.wall_ns())
            .with("after_ns", Moment::now().wall_ns())
            .with("took_ns", nanos(began.at.elapsed()))
    }

    /// How the call ended.
    pub fn errno(self, errno: Errno) -> Self {
        self.with("errno", errno.raw_os_error()).with("error", name_of(errno))
    }

    /// Prints it with how the call ended; gives what the call gave. Nothing where it failed as it should.
    ///
    /// # Errors
    /// When it did not end as it should.
    pub fn end<T>(self, done: Result<T, Errno>, expected: Option<Errno>) -> Result<Option<T>> {
        let act = self.0["act"].clone();
        match (done, expected) {
            (Ok(value), None) => {
                self.say()?;
                Ok(Some(value))
            }
            (Ok(_), Some(expected)) => {
                self.say()?;
                bail!("{act} succeeded; {} was expected", name_of(expected))
            }
            (Err(errno), Some(expected)) if errno == expected => {
                self.errno(errno).say()?;
                Ok(None)
            }
            (Err(errno), _) => {
                self.errno(errno).say()?;
                Err(io::Error::from(errno)).with_context(|| format!("{act} failed"))
            }
        }
    }

    /// Prints it, at once.
    pub fn say(self) -> io::Result<()> {
        say(&Value::Object(self.0))
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

// === impl Moment ===

impl Moment {
    pub fn now() -> Self {
        Self { at: Instant::now(), wall: SystemTime::now() }
    }

    fn wall_ns(self) -> u64 {
        nanos(self.wall.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is set"))
    }
}

/// Nanoseconds, which fit for some centuries.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("less than centuries")
}

// === impl Skipped ===

impl Skipped {
    /// Prints it.
    pub fn say(&self) -> io::Result<()> {
        say(&json!({"skipped": self.0}))
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_name_it_is_found_by() {
        assert_eq!(errno_of("ECONNREFUSED"), Ok(Errno::CONNREFUSED));
        assert_eq!(name_of(Errno::CONNREFUSED), "ECONNREFUSED");
        assert!(errno_of("ENONE").is_err());
    }
}
