//! What `nightjar doctor` prints for eyes.
//!
//! A line for each point: how it is, its name, what was found. Below it, indented, what is lost, what was refused
//! and the mend. Text from outside of the agent cannot act on the terminal.

use std::fmt::Write as _;

use super::{Diagnosis, Outcome, Proof, Sensor};
use nightjar_show::compact::{Style, shown};

/// Where nobody says how wide the page is.
const USUAL: usize = 80;
/// Wider lines are hard to read.
const WIDEST: usize = 100;
/// Narrower is no terminal to read on.
const NARROWEST: usize = 50;
/// Longest of `ok`, `limited`, `unknown` and `failed`.
const RESULT: usize = 7;
/// Of what one text may take: more is no reason but a document.
const LONGEST: usize = 2000;

const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const RED: u8 = 31;
const GREY: u8 = 90;
const CYAN: u8 = 36;

/// A page that starts with `title`.
#[must_use]
pub fn render(diagnosis: &Diagnosis, title: &str, style: Style) -> String {
    let names = diagnosis.checks.iter().map(|check| check.name);
    let names = names.chain(diagnosis.sensors.iter().map(|sensor| sensor.name));
    let names = names.chain(diagnosis.events.iter().map(|proof| proof.kind));
    let name = names.map(str::len).max().unwrap_or(0);
    let width = style.width.unwrap_or(USUAL).clamp(NARROWEST, WIDEST);
    let mut page = Page { text: String::new(), colour: style.colour, width, name };

    page.line(&shown(title));
    page.section("Host");
    for check in &diagnosis.checks {
        let finding = &check.finding;
        page.point(finding.result, check.name, &finding.found);
        page.note("lost", &finding.lost, None);
        page.note("mend", &finding.mend, Some(CYAN));
    }
    if !diagnosis.sensors.is_empty() {
        page.section("Sensors");
        diagnosis.sensors.iter().for_each(|sensor| page.sensor(sensor));
    }
    if !diagnosis.events.is_empty() {
        page.section("Events of a process that was started for this");
        diagnosis.events.iter().for_each(|proof| page.proof(proof));
    }
    page.line("");
    page.verdict(diagnosis);
    page.text
}

struct Page {
    text: String,
    colour: bool,
    width: usize,
    /// The longest name.
    name: usize,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn section(&mut self, title: &str) {
        let title = self.painted(title, Some(CYAN));
        self.line("");
        self.line(&title);
    }

    fn painted(&self, text: &str, colour: Option<u8>) -> String {
        match colour.filter(|_| self.colour && !text.is_empty()) {
            Some(colour) => format!("\u{1B}[{colour}m{text}\u{1B}[0m"),
            None => text.to_owned(),
        }
    }

    /// Columns before what is said of a point.
    fn indent(&self) -> usize {
        2 + RESULT + 2 + self.name + 2
    }

    fn point(&mut self, result: Outcome, name: &str, text: &str) {
        let colour = colour_of(result);
        let word = self.painted(result.word(), Some(colour));
        let padding = " ".repeat(RESULT - result.word().len());
        let start = format!("  {word}{padding}  {name:<width$}  ", width = self.name);
        self.wrapped(&start, self.indent(), text, None);
    }

    /// Something below a point; nothing where there is nothing to say.
    fn note(&mut self, label: &str, text: &str, colour: Option<u8>) {
        if text.is_empty() {
            return;
        }
        let indent = self.indent();
        let start = format!("{}{}", " ".repeat(indent), self.painted(&format!("{label}: "), Some(GREY)));
        self.wrapped(&start, indent + label.len() + 2, text, colour);
    }

    fn sensor(&mut self, sensor: &Sensor) {
        let text = match sensor.hook.as_str() {
            "" => "no hook serves it: there are no such events".to_owned(),
            hook => format!("{hook}: {}", sensor.worth),
        };
        self.point(sensor.result, sensor.name, &text);
        for refused in &sensor.refused {
            self.note("refused", &format!("{}: {}", refused.hook, refused.reason), None);
        }
        self.note("mend", &sensor.mend, Some(CYAN));
    }

    fn proof(&mut self, proof: &Proof) {
        match proof.milliseconds {
            Some(milliseconds) if proof.seen => {
                self.point(proof.result(), proof.kind, &format!("seen after {milliseconds:.1} ms"));
            }
            _ if proof.seen => self.point(proof.result(), proof.kind, "seen"),
            _ if !proof.served => self.point(proof.result(), proof.kind, "not waited for: no hook serves it"),
            _ if let Some(reason) = &proof.undone => {
                self.point(
                    proof.result(),
                    proof.kind,
                    &format!("not looked at: it could not be done ({reason})"),
                );
            }
            _ => {
                self.point(proof.result(), proof.kind, "not seen");
                self.note(
                    "mend",
                    "see above for what serves it; `nightjar -vv doctor` shows more",
                    Some(CYAN),
                );
            }
        }
    }

    fn verdict(&mut self, diagnosis: &Diagnosis) {
        let (failed, limited) = (diagnosis.count(Outcome::Failed), diagnosis.count(Outcome::Limited));
        let mut text = match diagnosis.verdict {
            Outcome::Failed => {
                format!("{failed} of these points must be mended before this host can be watched")
            }
            Outcome::Limited => "this host can be watched".to_owned(),
            Outcome::Ok | Outcome::Unknown => "this host can be watched, and nothing is lost".to_owned(),
        };
        if limited > 0 {
            let _infallible = write!(text, "; {limited} could be better");
        }
        let unknown = diagnosis.count(Outcome::Unknown);
        if unknown > 0 {
            let _infallible = write!(text, "; {unknown} could not be looked at");
        }
        let word = self.painted(diagnosis.verdict.word(), Some(colour_of(diagnosis.verdict)));
        self.wrapped(&format!("{word}: "), diagnosis.verdict.word().len() + 2, &text, None);
    }

    /// Text over as many lines as it takes, the first of which begins with `start`, `indent` columns wide.
    fn wrapped(&mut self, start: &str, indent: usize, text: &str, colour: Option<u8>) {
        let text: String = shown(text).chars().take(LONGEST).collect();
        // What has a long name gets a column that can be read all the same.
        let room = self.width.saturating_sub(indent).max(20);
        let mut lines = vec![String::new()];
        for word in words(&text) {
            let line = lines.last_mut().expect("there is one");
            if line.is_empty() {
                line.push_str(word);
            } else if columns(line) + 1 + columns(word) > room {
                lines.push(word.to_owned());
            } else {
                line.push(' ');
                line.push_str(word);
            }
        }
        for (number, line) in lines.iter().enumerate() {
            let painted = self.painted(line, colour);
            let start = if number == 0 { start.to_owned() } else { " ".repeat(indent) };
            let whole = format!("{start}{painted}");
            self.line(whole.trim_end());
        }
    }
}

fn colour_of(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ok => GREEN,
        Outcome::Unknown => GREY,
        Outcome::Limited => YELLOW,
        Outcome::Failed => RED,
    }
}

/// Words of a text. A command in backticks is one, so that it can be copied.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut is_command = false;
    text.split(move |c| {
        is_command ^= c == '`';
        c == ' ' && !is_command
    })
    .filter(|word| !word.is_empty())
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Finding, Refused};

    fn proof(kind: &'static str) -> Proof {
        Proof { kind, seen: false, milliseconds: None, served: true, undone: None }
    }

    fn diagnosis() -> Diagnosis {
        let checks = vec![
            Finding::ok("Linux 6.12.4 on x86_64").of("kernel"),
            Finding::limited(
                "not mounted, and the agent may not mount it for itself",
                "failed execs; of changes of credentials the call and the moment",
                "`mount -t tracefs tracefs /sys/kernel/tracing`, or give the agent CAP_SYS_ADMIN for its start",
            )
            .of("tracefs"),
            Finding::unknown("this process may not read it").of("lockdown"),
        ];
        let sensor = Sensor {
            name: "process.exec_failed",
            kinds: &["process.exec_failed"],
            result: Outcome::Limited,
            hook: String::new(),
            worth: String::new(),
            refused: vec![Refused {
                hook: "system call tracepoint".to_owned(),
                reason: "no tracefs: EPERM".to_owned(),
            }],
            mend: "`mount -t tracefs tracefs /sys/kernel/tracing`".to_owned(),
        };
        let proofs = vec![
            Proof { seen: true, milliseconds: Some(1.26), ..proof("process.exec") },
            proof("process.exec_failed"),
            Proof { undone: Some("Operation not permitted".to_owned()), ..proof("file.mount") },
        ];
        Diagnosis::new(checks, vec![sensor], proofs)
    }

    #[test]
    fn a_page_reads_well_at_80_columns() {
        let expected = "\
nightjar 0.1.0 on host

Host
  ok       kernel               Linux 6.12.4 on x86_64
  limited  tracefs              not mounted, and the agent may not mount it for
                                itself
                                lost: failed execs; of changes of credentials
                                      the call and the moment
                                mend: `mount -t tracefs tracefs /sys/kernel/tracing`,
                                      or give the agent CAP_SYS_ADMIN for its
                                      start
  unknown  lockdown             this process may not read it

Sensors
  limited  process.exec_failed  no hook serves it: there are no such events
                                refused: system call tracepoint: no tracefs:
                                         EPERM
                                mend: `mount -t tracefs tracefs /sys/kernel/tracing`

Events of a process that was started for this
  ok       process.exec         seen after 1.3 ms
  failed   process.exec_failed  not seen
                                mend: see above for what serves it;
                                      `nightjar -vv doctor` shows more
  unknown  file.mount           not looked at: it could not be done (Operation
                                not permitted)

failed: 1 of these points must be mended before this host can be watched; 2
        could be better; 2 could not be looked at
";
        assert_eq!(render(&diagnosis(), "nightjar 0.1.0 on host", Style::default()), expected);
    }

    #[test]
    fn colours_change_nothing_else() {
        let plain = render(&diagnosis(), "t", Style::default());
        let mut coloured = render(&diagnosis(), "t", Style { colour: true, width: Some(80) });
        assert!(coloured.contains("\u{1B}[31mfailed\u{1B}[0m"));
        assert!(coloured.contains("\u{1B}[33mlimited\u{1B}[0m"));
        assert!(coloured.contains("\u{1B}[32mok\u{1B}[0m"));
        for code in ["0", "31", "32", "33", "36", "90"] {
            coloured = coloured.replace(&format!("\u{1B}[{code}m"), "");
        }
        assert_eq!(coloured, plain);
    }

    #[test]
    fn every_width_gives_a_page_and_commands_stay_whole() {
        for width in [0, 1, 40, 50, 79, 100, 1000] {
            let page = render(&diagnosis(), "t", Style { colour: false, width: Some(width) });
            assert!(page.contains("`mount -t tracefs tracefs /sys/kernel/tracing`"), "{page}");
            assert!(
                page.lines()
                    .filter(|line| !line.contains('`'))
                    .all(|line| columns(line) <= width.clamp(61, 100)),
                "{width}: {page}"
            );
        }
    }

    #[test]
    fn what_files_hold_does_not_command_the_terminal() {
        let checks = vec![Finding::ok("Linux \u{1B}[2J\nsecond\u{202E}").of("kernel")];
        let page = render(&Diagnosis::new(checks, Vec::new(), Vec::new()), "\u{7}", Style::default());
        assert!(page.contains(r"Linux \u{1b}[2J\nsecond\u{202e}"), "{page}");
        assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{page}");
    }

    #[test]
    fn a_text_of_any_length_ends() {
        let checks = vec![Finding::ok("x ".repeat(100_000)).of("kernel")];
        assert!(
            render(&Diagnosis::new(checks, Vec::new(), Vec::new()), "t", Style::default()).len() < 10_000
        );
    }

    #[test]
    fn all_is_well_says_so() {
        let page = render(&Diagnosis::new(Vec::new(), Vec::new(), Vec::new()), "t", Style::default());
        assert!(page.ends_with("ok: this host can be watched, and nothing is lost\n"), "{page}");
    }
}
