//! One line an event, for eyes.
//!
//! ```text
//! 10:21:33.041  exec    alice     4242 bash         /usr/bin/ls -l /tmp   in /home/alice  tty pts/0
//! ```
//!
//! Time, what, who (user, process ID, name of the parent or of the process itself), and the rest. Text
//! comes from anybody, so what could act on a terminal is written as an escape.

mod file;
mod network;

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use nightjar_proto::v1::{Event, Process, event::Body};

use super::Export;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// With colours.
    pub colour: bool,
    /// Columns of the terminal; lines are cut to it. `None`: not cut.
    pub width: Option<usize>,
}

/// Writes events as lines for eyes.
pub struct Compact<W> {
    to: W,
    style: Style,
    lines: String,
}

impl<W: Write> Compact<W> {
    /// Writes to `to`, which need not be buffered.
    pub fn new(to: W, style: Style) -> Self {
        Self { to, style, lines: String::new() }
    }
}

impl<W: Write + Send> Export for Compact<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        line(event, self.style, &mut self.lines);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.write_all(self.lines.as_bytes()).and_then(|()| self.to.flush());
        self.lines.clear();
        result
    }
}

/// Colours of the terminal, by their number.
#[derive(Clone, Copy)]
enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Magenta = 35,
    Grey = 90,
}

/// Appends the line of an event, its end included.
pub fn line(event: &Event, style: Style, to: &mut String) {
    let mut line = Line::default();
    line.part(&time(event), Some(Colour::Grey));
    line.text("  ");
    let (word, colour) = what(event);
    line.part(&format!("{word:<6}"), Some(colour));
    match (&event.process, &event.body) {
        (process, Some(Body::File(file))) => {
            done_by(&mut line, process.as_ref(), |line| file::about(line, event, file));
        }
        (process, Some(Body::Network(network))) => {
            done_by(&mut line, process.as_ref(), |line| network::about(line, event, network));
        }
        (Some(process), Some(body)) => about_process(&mut line, process, event, body),
        (_, Some(Body::Telemetry(telemetry))) => {
            for loss in &telemetry.losses {
                line.text(&format!(
                    "  {} {} not seen ({}: {})",
                    loss.count,
                    loss.kinds.join(" "),
                    loss.hook,
                    loss.reason
                ));
            }
        }
        _ => {}
    }
    line.write(style, to);
}

/// What a process did, if it is known which, and where.
fn done_by(line: &mut Line, process: Option<&Process>, about: impl FnOnce(&mut Line)) {
    actor(line, process, process.map_or("", |process| &process.comm));
    about(line);
    if let Some(process) = process {
        container(line, process);
    }
}

/// User, process ID and `name`; where who did it is not known, signs that say so.
fn actor(line: &mut Line, process: Option<&Process>, name: &str) {
    let Some(process) = process else {
        line.part(&format!("  {:<8} {:>7} {:<15}  ", "?", "?", "?"), Some(Colour::Grey));
        return;
    };
    let user = if process.user.is_empty() {
        process.uid.unwrap_or_default().to_string()
    } else {
        process.user.clone()
    };
    line.part(&format!("  {:<8}", shown(&user)), Some(Colour::Blue));
    line.text(&format!(" {:>7} ", process.pid));
    line.text(&format!("{:<15}  ", shown(name)));
}

fn about_process(line: &mut Line, process: &Process, event: &Event, body: &Body) {
    let name = match body {
        Body::Exec(_) | Body::Fork(_) => event.parent.as_ref().map_or("", |parent| &parent.comm),
        _ => &process.comm,
    };
    actor(line, Some(process), name);
    match body {
        Body::Exec(exec) => {
            line.text(&command(process));
            if let Some(script) = &exec.script {
                line.part(&format!("  script {}", shown(&script.path)), Some(Colour::Grey));
            }
            for privilege in &exec.privileges_gained {
                line.part(&format!("  gains {privilege}"), Some(Colour::Red));
            }
            context(line, process);
        }
        Body::ExecFailed(failed) => {
            line.text(&shown(&failed.filename));
            line.part(&format!("  {}", failed.errno), Some(Colour::Yellow));
            context(line, process);
        }
        Body::Fork(fork) => {
            line.text(&shown(&process.comm));
            line.part(&format!("  {}", fork.clone_flags.join(" ")), Some(Colour::Grey));
        }
        Body::Exit(exit) => {
            let ending = match exit.code {
                Some(code) => format!("code {code}"),
                None if exit.core_dumped => format!("{}, core dumped", exit.signal),
                None => exit.signal.clone(),
            };
            let failed = exit.code != Some(0);
            line.part(&ending, failed.then_some(Colour::Yellow));
            let times = format!(
                "  after {}, cpu {}, peak {}",
                duration(exit.run_time_ns),
                duration(exit.cpu_time_ns),
                size(exit.peak_resident_bytes)
            );
            line.part(&times, Some(Colour::Grey));
        }
        Body::Credentials(change) => {
            line.text(&changes(change));
            line.part(&capabilities(" +", &change.capabilities_gained), Some(Colour::Red));
            line.part(&capabilities(" -", &change.capabilities_lost), Some(Colour::Grey));
            let call = if change.call.is_empty() { "unknown call" } else { &change.call };
            line.part(&format!("  by {call}"), Some(Colour::Grey));
        }
        Body::Telemetry(_) | Body::File(_) | Body::Network(_) => {}
    }
}

/// Where it happened.
fn context(line: &mut Line, process: &Process) {
    let mut text = String::new();
    if !process.cwd.is_empty() {
        let _infallible = write!(text, "  in {}", shown(&process.cwd));
    }
    if !process.tty.is_empty() {
        let _infallible = write!(text, "  tty {}", shown(&process.tty));
    }
    line.part(&text, Some(Colour::Grey));
    container(line, process);
}

fn container(line: &mut Line, process: &Process) {
    if let Some(container) = &process.container {
        let id: String = container.id.chars().take(12).collect();
        line.part(&format!("  {} {}", container.runtime, shown(&id)), Some(Colour::Magenta));
    }
}

/// The executable and its arguments as one would type them.
fn command(process: &Process) -> String {
    let exe = process.exe.as_ref().map_or("", |exe| &exe.path);
    let mut text = shown(exe);
    for flag in process.exe.iter().flat_map(|exe| [(exe.deleted, "deleted"), (exe.memfd, "memfd")]) {
        if flag.0 {
            let _infallible = write!(text, " [{}]", flag.1);
        }
    }
    for arg in process.args.iter().skip(1) {
        text.push(' ');
        let plain = !arg.is_empty()
            && arg.chars().all(|c| !c.is_whitespace() && !acts(c) && !"'\"\\$`;&|<>()*?[]#~!{}".contains(c));
        if plain {
            text.push_str(arg);
        } else {
            let _infallible = write!(text, "'{}'", shown(arg).replace('\'', "'\\''"));
        }
    }
    if process.args_truncated {
        text.push_str(" …");
    }
    text
}

fn changes(change: &nightjar_proto::v1::Credentials) -> String {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return String::new() };
    let mut parts = Vec::new();
    let pairs = [
        ("uid", before.uid, after.uid),
        ("euid", before.euid, after.euid),
        ("suid", before.suid, after.suid),
        ("fsuid", before.fsuid, after.fsuid),
        ("gid", before.gid, after.gid),
        ("egid", before.egid, after.egid),
        ("sgid", before.sgid, after.sgid),
        ("fsgid", before.fsgid, after.fsgid),
    ];
    for (name, before, after) in pairs {
        if before != after {
            parts.push(format!("{name} {}→{}", before.unwrap_or_default(), after.unwrap_or_default()));
        }
    }
    if before.user_namespace != after.user_namespace {
        parts.push("new user namespace".to_owned());
    }
    if let (Some(before), Some(after)) = (&before.capabilities, &after.capabilities) {
        // Gains and losses of the sets that count at once are told by name elsewhere.
        let sets = [
            ("inheritable", &before.inheritable, &after.inheritable),
            ("bounding", &before.bounding, &after.bounding),
            ("ambient", &before.ambient, &after.ambient),
        ];
        if change.capabilities_gained.is_empty() && change.capabilities_lost.is_empty() {
            // Raised or lowered within what is permitted.
            parts.extend((before.effective != after.effective).then(|| "effective set".to_owned()));
        }
        parts.extend(sets.iter().filter(|(_, b, a)| b != a).map(|(name, ..)| format!("{name} set")));
    }
    if before.securebits != after.securebits {
        parts.push(format!("securebits {:#x}→{:#x}", before.securebits, after.securebits));
    }
    parts.join(" ")
}

/// Names of a few capabilities, the number of many.
fn capabilities(sign: &str, names: &[String]) -> String {
    /// More than these fill a line and are hard to tell apart anyway.
    const FEW: usize = 4;
    if names.len() > FEW {
        return format!("{sign}{} capabilities", names.len());
    }
    names.iter().fold(String::new(), |text, name| text + sign + name)
}

/// `10:21:33.041`, by UTC.
fn time(event: &Event) -> String {
    let time = event.time.unwrap_or_default();
    let of_day = time.seconds.rem_euclid(86_400);
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", time.nanos / 1_000_000)
}

fn what(event: &Event) -> (&'static str, Colour) {
    match &event.body {
        Some(Body::File(_)) => file::what(&event.kind),
        Some(Body::Network(network)) => network::what(&event.kind, network),
        Some(Body::Exec(_)) => ("exec", Colour::Green),
        Some(Body::ExecFailed(_)) => ("failed", Colour::Yellow),
        Some(Body::Fork(_)) => ("fork", Colour::Grey),
        Some(Body::Exit(_)) => ("exit", Colour::Grey),
        Some(Body::Credentials(_)) => ("creds", Colour::Magenta),
        Some(Body::Telemetry(_)) => ("LOSS", Colour::Red),
        None => ("?", Colour::Grey),
    }
}

fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000_000 => format!("{}us", nanoseconds / 1000),
        1_000_000..10_000_000_000 => format!("{}ms", nanoseconds / 1_000_000),
        _ => format!("{}s", nanoseconds / 1_000_000_000),
    }
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// `812 B`, `1.2 KiB`: a change of a few bytes is to be seen.
fn amount(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut whole = bytes;
    while whole >= 1 << 20 {
        whole >>= 10;
        unit += 1;
    }
    format!("{}.{} {}", whole >> 10, (whole & 1023) * 10 / 1024, UNITS[unit])
}

/// Text with everything that could act on a terminal, or hide, as an escape.
#[must_use]
pub fn shown(text: &str) -> String {
    if text.chars().all(|c| !acts(c)) {
        return text.to_owned();
    }
    text.chars().fold(String::new(), |mut shown, c| {
        if acts(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

fn acts(c: char) -> bool {
    // Control characters, and those that turn the direction of writing or join invisibly.
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// A line in the making.
#[derive(Default)]
struct Line(Vec<(String, Option<Colour>)>);

impl Line {
    fn text(&mut self, text: &str) {
        self.part(text, None);
    }

    fn part(&mut self, text: &str, colour: Option<Colour>) {
        self.0.push((text.to_owned(), colour));
    }

    /// Appends the line, cut to the terminal's width; the last column says that there was more.
    fn write(self, style: Style, to: &mut String) {
        let columns: usize = self.0.iter().map(|(text, _)| text.chars().count()).sum();
        let too_long = style.width.is_some_and(|width| columns > width);
        let mut room = if too_long { style.width.unwrap_or_default().saturating_sub(1) } else { columns };
        for (text, colour) in self.0 {
            let text: String = text.chars().take(room).collect();
            room -= text.chars().count();
            match colour.filter(|_| style.colour && !text.is_empty()) {
                Some(colour) => {
                    let _infallible = write!(to, "\u{1B}[{}m{text}\u{1B}[0m", colour as u8);
                }
                None => to.push_str(&text),
            }
        }
        to.push_str(if too_long { "…\n" } else { "\n" });
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::{Exec, File, Parent};
    use prost_types::Timestamp;

    use super::*;

    fn exec(args: &[&str]) -> Event {
        Event {
            time: Some(Timestamp { seconds: 37_293, nanos: 41_000_000 }),
            process: Some(Process {
                pid: 4242,
                user: "alice".to_owned(),
                comm: "ls".to_owned(),
                exe: Some(File { path: "/usr/bin/ls".to_owned(), ..File::default() }),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                cwd: "/home/alice".to_owned(),
                tty: "pts/0".to_owned(),
                ..Process::default()
            }),
            parent: Some(Parent { comm: "bash".to_owned(), ..Parent::default() }),
            body: Some(Body::Exec(Exec::default())),
            ..Event::default()
        }
    }

    fn shown_line(event: &Event, style: Style) -> String {
        let mut text = String::new();
        line(event, style, &mut text);
        text
    }

    #[test]
    fn an_exec_is_one_aligned_line() {
        assert_eq!(
            shown_line(&exec(&["ls", "-l", "/tmp"]), Style::default()),
            "10:21:33.041  exec    alice       4242 bash             /usr/bin/ls -l /tmp  in /home/alice  tty pts/0\n"
        );
    }

    #[test]
    fn an_argument_cannot_act_on_the_terminal_or_make_a_second_line() {
        let text = shown_line(&exec(&["ls", "\u{1B}[2Ja\nb", "", "it's", "\u{202E}x"]), Style::default());
        assert!(text.contains(r"/usr/bin/ls '\u{1b}[2Ja\nb' '' 'it'\''s' '\u{202e}x'"), "{text}");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_line_ends_at_the_width_of_the_terminal() {
        for width in 1..100 {
            let style = Style { width: Some(width), colour: false };
            let text = shown_line(&exec(&["ls", "-l", "/tmp"]), style);
            assert_eq!(text.trim_end_matches('\n').chars().count(), width);
            assert!(text.ends_with("…\n"));
        }
    }

    #[test]
    fn colours_do_not_count_as_columns_and_are_only_there_when_wanted() {
        let style = Style { width: Some(40), colour: true };
        let text = shown_line(&exec(&["ls"]), style);
        assert!(text.contains("\u{1B}[32mexec"));
        let plain = shown_line(&exec(&["ls"]), Style { colour: false, ..style });
        assert!(!plain.contains('\u{1B}'));
        let mut stripped = String::new();
        let mut parts = text.split('\u{1B}');
        stripped.push_str(parts.next().unwrap());
        for part in parts {
            stripped.push_str(part.split_once('m').unwrap().1);
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn amounts_have_one_digit_behind_the_point() {
        let table = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_331, "1.2 KiB"),
            (1_332, "1.3 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(amount(bytes), text);
        }
    }
}
