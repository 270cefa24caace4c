//! Follows the arguments of a command by what its program makes of them, through programs that run others
//! (`sudo`, `sh -c`, `docker exec`).

use std::mem::take;

use super::{
    mask::{Masks, Span, arguments, position},
    names::{self, Kind},
    programs::{MOST_RULES, PROGRAMS, Place, Program, READS_SECRET, Rule, Syntax, Takes},
    shell::{Token, Tokens},
    text::Context,
};

/// How deep scripts within scripts are followed.
const DEPTH: u8 = 4;
/// Words of a subcommand come first: at most so many other operands are before or between them.
const STRAY: u8 = 3;

/// Programs by name.
pub struct Programs(Vec<(&'static str, &'static Program)>);

impl Programs {
    pub fn new() -> Self {
        let mut programs: Vec<_> = PROGRAMS
            .iter()
            .flat_map(|program| program.names.iter().map(move |&name| (name, program)))
            .collect();
        programs.sort_unstable_by_key(|(name, _)| *name);
        Self(programs)
    }

    /// The program of that name, which may have its path before it, or the dash of a login shell.
    fn get(&self, name: &[u8]) -> Option<&'static Program> {
        let name = name.iter().rposition(|&byte| byte == b'/').map_or(name, |slash| &name[slash + 1..]);
        let name = name.strip_prefix(b"-").unwrap_or(name);
        let index = self.0.binary_search_by(|(known, _)| known.as_bytes().cmp(name)).ok()?;
        Some(self.0[index].1)
    }
}

/// Finds what the programs' tables say.
pub struct Walk<'a> {
    pub text: &'a [u8],
    pub programs: &'a Programs,
    pub context: &'a mut Context,
    pub masks: &'a mut Masks,
}

/// A command, as far as it was read.
#[derive(Default)]
struct Command {
    state: State,
    program: Option<&'static Program>,
    /// By row: how many of the words that have to come before did.
    heard: [u8; MOST_RULES],
    /// By row: how many operands came after them. For [`Place::Named`]: 1 after a name.
    operands: [u8; MOST_RULES],
    /// How many operands there were.
    seen: u8,
    /// `--` was there.
    only_operands: bool,
    /// Whether, and how deep, this is in a script.
    depth: u8,
    /// Another program runs it, and may have been given it as one word.
    run: bool,
    /// What it writes, where that is its operands.
    said: Vec<Span>,
    /// What the command before wrote into it.
    piped: Vec<Span>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The next word is the program.
    #[default]
    Start,
    /// It is an option or operand.
    Arguments,
    /// It is the value of an option.
    Value(Option<Takes>),
    /// It follows an option that takes no value.
    Switched,
    /// Nothing is known of the program.
    Unknown,
}

impl Walk<'_> {
    /// Reads a block of arguments.
    pub fn block(mut self) {
        let mut command = Command::default();
        for argument in arguments(self.text) {
            self.word(&mut command, argument);
            if command.state == State::Unknown {
                return;
            }
        }
    }

    /// Reads text for a shell.
    fn script(&mut self, text: Span, depth: u8) {
        if depth == 1 {
            let script = &mut self.context.script;
            script.start = if script.is_empty() { text.start } else { script.start.min(text.start) };
            script.end = script.end.max(text.end);
        }
        if depth > DEPTH {
            return;
        }
        let fresh = || Command { depth, ..Command::default() };
        let mut command = fresh();
        for token in Tokens::new(self.text, text) {
            match token {
                Token::Word(word) => {
                    self.word(&mut command, word);
                    self.piped(&mut command, word);
                    self.substitution(word, depth);
                }
                Token::Pipe => command = Command { piped: take(&mut command.said), ..fresh() },
                // The next word forgets what was said, a pipe does not: `(echo x) | cat`.
                Token::Break => {
                    let begun = command.state != State::Start;
                    let piped = if begun { Vec::new() } else { take(&mut command.piped) };
                    command = Command { said: take(&mut command.said), piped, ..fresh() };
                }
            }
        }
    }

    /// What came through a pipe is a secret, if the command as far as it was read says so.
    fn piped(&mut self, command: &mut Command, word: Span) {
        if command.piped.is_empty() {
            return;
        }
        let rules = command.program.map_or(&[][..], |program| program.rules);
        let row = rules
            .iter()
            .enumerate()
            .find(|(row, rule)| rule.place == Place::Input && command.is_active(*row, rule));
        let takes = match row {
            Some((_, rule)) => rule.takes,
            None if is_one_of(word.of(self.text), READS_SECRET) => Takes::Whole,
            None => return,
        };
        let said = take(&mut command.piped);
        let said = match &said[..] {
            // The format of `printf`.
            [format, values @ ..] if !values.is_empty() && format.of(self.text).contains(&b'%') => values,
            said => said,
        };
        for &word in said {
            self.take(command, word, takes);
        }
    }

    /// `$(command)` within double quotes.
    fn substitution(&mut self, word: Span, depth: u8) {
        let quoted = word.start.checked_sub(1).map(|before| self.text[before]) == Some(b'"');
        if quoted && let Some(start) = word.of(self.text).windows(2).position(|pair| pair == b"$(") {
            self.script(word.skip(start + 2), depth + 1);
        }
    }

    fn word(&mut self, command: &mut Command, word: Span) {
        match command.state {
            State::Start => self.start(command, word),
            State::Value(takes) => {
                command.state = State::Arguments;
                if let Some(takes) = takes {
                    self.take(command, word, takes);
                }
            }
            State::Switched => {
                command.state = State::Arguments;
                self.context.harmless.push(word);
                self.argument(command, word);
            }
            State::Arguments => self.argument(command, word),
            State::Unknown => {}
        }
    }

    fn start(&mut self, command: &mut Command, word: Span) {
        let bytes = word.of(self.text);
        if is_assignment(bytes) && (command.run || command.depth > 0) {
            return;
        }
        if command.run && bytes.iter().any(u8::is_ascii_whitespace) {
            command.state = State::Unknown;
            return self.script(word, command.depth + 1);
        }
        let program = self.programs.get(bytes);
        let state = if program.is_some() { State::Arguments } else { State::Unknown };
        let piped = take(&mut command.piped);
        *command = Command { program, state, depth: command.depth, piped, ..Command::default() };
    }

    fn argument(&mut self, command: &mut Command, word: Span) {
        let Some(program) = command.program else { return };
        let bytes = word.of(self.text);
        if bytes == b"--" && !command.only_operands {
            let runs = program
                .rules
                .iter()
                .enumerate()
                .any(|(row, rule)| rule.place == Place::Dashes && command.is_active(row, rule));
            if runs {
                command.run();
            } else {
                command.only_operands = true;
            }
            return;
        }
        let is_operand = match bytes {
            _ if command.only_operands => true,
            [b'-', _, ..] => {
                self.option(command, program, word);
                false
            }
            // Options of some programs, paths for others.
            [b'/', ..] => !self.option(command, program, word),
            _ => true,
        };
        if is_operand {
            self.operand(command, program, word);
        }
    }

    /// False if no row is about the word.
    fn option(&mut self, command: &mut Command, program: &'static Program, word: Span) -> bool {
        let bytes = word.of(self.text);
        for (row, rule) in program.rules.iter().enumerate() {
            if !command.is_active(row, rule) {
                // Letters are heard one by one.
                if bytes.starts_with(b"--") {
                    command.hear(row, rule, bytes);
                }
                continue;
            }
            let (Place::Option(name) | Place::Joined(name) | Place::Switch(name)) = rule.place else {
                continue;
            };
            let Some(rest) = bytes.strip_prefix(name.as_bytes()) else { continue };
            let value = word.skip(name.len());
            let long = name.len() > 2;
            match (rule.place, rest) {
                (Place::Option(_), []) => command.state = State::Value(Some(rule.takes)),
                (Place::Switch(_), []) => command.state = State::Switched,
                (Place::Option(_), [b'=', ..]) if long => self.take(command, value.skip(1), rule.takes),
                (Place::Joined(_), [_, ..]) => self.take(command, value, rule.takes),
                (Place::Option(_), [_, ..]) if !long && !matches!(program.syntax, Syntax::Words(_)) => {
                    self.take(command, value, rule.takes);
                }
                _ => continue,
            }
            return true;
        }
        let valued = match program.syntax {
            Syntax::Letters(_) if bytes.starts_with(b"--") => is_one_of(bytes, program.long),
            Syntax::Letters(letters) if bytes[0] == b'-' => {
                return self.letters(command, program, letters, word);
            }
            Syntax::Letters(_) => return false,
            Syntax::Words(valued) => is_one_of(bytes, valued),
            Syntax::AllBut(switches) => {
                bytes[0] == b'-' && !bytes.contains(&b'=') && !is_one_of(bytes, switches)
            }
        };
        if valued {
            command.state = State::Value(None);
        }
        valued
    }

    /// Letters that may be joined: `-sSu user`.
    fn letters(
        &mut self,
        command: &mut Command,
        program: &'static Program,
        valued: &str,
        word: Span,
    ) -> bool {
        for (index, &letter) in word.of(self.text).iter().enumerate().skip(1) {
            let rest = word.skip(index + 1);
            let mut takes_value = valued.as_bytes().contains(&letter);
            for (row, rule) in program.rules.iter().enumerate() {
                if !command.is_active(row, rule) {
                    command.hear(row, rule, &[b'-', letter]);
                    continue;
                }
                let (Place::Option(name) | Place::Joined(name)) = rule.place else { continue };
                if name.as_bytes() != [b'-', letter] {
                    continue;
                }
                if !rest.is_empty() {
                    self.take(command, rest, rule.takes);
                    return true;
                }
                if rule.place == Place::Option(name) {
                    command.state = State::Value(Some(rule.takes));
                    return true;
                }
                takes_value = false;
            }
            if takes_value {
                if rest.is_empty() {
                    command.state = State::Value(None);
                }
                return true;
            }
            if !letter.is_ascii_alphanumeric() {
                return true;
            }
        }
        true
    }

    fn operand(&mut self, command: &mut Command, program: &'static Program, word: Span) {
        let bytes = word.of(self.text);
        for (row, rule) in program.rules.iter().enumerate() {
            if !command.is_active(row, rule) {
                command.hear(row, rule, bytes);
                continue;
            }
            let number = command.operands[row];
            command.operands[row] = number.saturating_add(1);
            match rule.place {
                Place::Operand(wanted) if wanted == number => {
                    self.take(command, word, rule.takes);
                    if rule.takes == Takes::Command {
                        return;
                    }
                }
                Place::Operands => self.take(command, word, rule.takes),
                Place::Named => {
                    if number == 1 {
                        self.take(command, word, rule.takes);
                    }
                    command.operands[row] = u8::from(number == 0 && names::kind(bytes).is_some());
                }
                _ => {}
            }
        }
        command.seen = command.seen.saturating_add(1);
    }

    /// Does with the argument what the row says.
    fn take(&mut self, command: &mut Command, word: Span, takes: Takes) {
        let bytes = word.of(self.text);
        let after = |at: Option<usize>| at.map(|at| word.skip(at + 1));
        let first = |wanted: u8| position(bytes, wanted);
        let last = |wanted: u8| bytes.iter().rposition(|&byte| byte == wanted);
        let secret = match takes {
            Takes::Whole => Some(word),
            Takes::Unnamed => (!bytes.contains(&b'=')).then_some(word),
            Takes::Cookie => bytes.contains(&b'=').then_some(word),
            Takes::After(byte) => after(first(byte)),
            Takes::AfterLast(byte) => after(last(byte)),
            Takes::Logon => after(first(b'/')).map(|secret| {
                let end = last(b'@').map_or(word.end, |at| word.start + at);
                Span::new(secret.start, end)
            }),
            Takes::Proxy => {
                let colon = first(b':').filter(|&colon| !bytes[colon..].starts_with(b"://"));
                last(b'@').zip(colon).map(|(at, colon)| Span::new(word.start + colon + 1, word.start + at))
            }
            Takes::Source => {
                self.context.harmless.push(word);
                bytes.starts_with(b"pass:").then(|| word.skip(5))
            }
            Takes::Said => {
                if command.depth > 0 {
                    command.said.push(word);
                }
                None
            }
            Takes::Nothing => {
                self.context.harmless.push(word);
                None
            }
            Takes::Script => {
                self.script(word, command.depth + 1);
                None
            }
            Takes::Command => {
                command.run();
                self.start(command, word);
                None
            }
        };
        if let Some(secret) = secret.map(|secret| secret.unquoted(self.text)) {
            let bytes = secret.of(self.text);
            let reference = command.depth > 0 && names::is_shell_variable(bytes);
            if names::is_secret(Kind::Any, bytes) && !reference {
                self.masks.add(secret);
            }
        }
    }
}

impl Command {
    /// The words that have to come before the row did.
    fn is_active(&self, row: usize, rule: &Rule) -> bool {
        usize::from(self.heard[row]) == rule.after.len()
    }

    /// One of them may be this.
    fn hear(&mut self, row: usize, rule: &Rule, word: &[u8]) {
        let heard = usize::from(self.heard[row]);
        let early = self.seen <= self.heard[row].saturating_add(STRAY);
        if early && rule.after.get(heard).is_some_and(|wanted| word.eq_ignore_ascii_case(wanted.as_bytes())) {
            self.heard[row] += 1;
        }
    }

    /// What follows is another program.
    fn run(&mut self) {
        *self = Self { depth: self.depth, run: true, piped: take(&mut self.piped), ..Self::default() };
    }
}

/// `NAME=value` before a program.
fn is_assignment(word: &[u8]) -> bool {
    let name = word.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    name > 0 && word.get(name) == Some(&b'=')
}

fn is_one_of(word: &[u8], list: &[&str]) -> bool {
    list.iter().any(|known| known.as_bytes() == word)
}
