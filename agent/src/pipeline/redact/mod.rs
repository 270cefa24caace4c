//! Secrets in command lines are masked before they leave the host.
//!
//! | found by | where | example |
//! |---|---|---|
//! | the name of a value | `names` | `--db-password=x`, `API_TOKEN=x`, `{"secret":"x"}` |
//! | what is around it | `text` | `https://user:x@host`, `Authorization: Bearer x`, a private key |
//! | its looks | `shapes` | tokens that begin with `ghp_`, `xoxb-`, … |
//! | the program it is given to | `programs`, `command`, `shell` | `mysql -px`, `sudo sh -c 'curl -u user:x …'` |
//! | the configuration | `custom` | |
//!
//! `hints` finds where there may be any of these, and `mask` puts the marks in.
//!
//! What is masked becomes `<redacted:8-15>`, where the numbers are the class of its length in bytes; what is
//! around it stays. Where it is not clear what a value is, it is masked, as a secret that has left cannot be
//! called back. Not masked: an operand that only its program knows to be a secret and that has no row, what
//! is said in other languages (`expect`), and a value that looks like an option (`--password -x`).
//!
//! Whoever starts a program chooses its arguments, so all of this works in linear time, and can hide only
//! what the arguments say, not that the program was run.

mod command;
mod custom;
mod hints;
mod mask;
mod names;
mod programs;
mod shapes;
mod shell;
mod text;

#[cfg(test)]
mod tests;

use self::{
    command::{Programs, Walk},
    custom::Custom,
    hints::Hints,
    mask::{Masks, arguments},
    text::{Context, Scan},
};

/// A masked text is masked again until it does not change, for so many rounds: then whole arguments are.
/// Only text that was made to do so takes more than one.
const ROUNDS: usize = 3;

/// What to mask beyond what is always masked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Options of which the value is a secret, such as `--pin`, with or without dashes; case does not
    /// matter, and `-` is as `_`. At least two letters: those of one mean something else with each program.
    pub flags: Vec<String>,
    /// Names of environment variables and of other `name=value`, such as `*_PIN`: globs, in which case does
    /// not matter.
    pub names: Vec<String>,
    /// A name for messages, and a regular expression that is looked for within each argument, in bytes: `.`
    /// is one byte, `\w` an ASCII letter. Its first group is masked; all it matches if it has none.
    pub patterns: Vec<(String, String)>,
}

/// Why options are not usable.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// Too short, or not an option.
    #[error("{0:?} is not an option that can be masked; give one of at least two letters, such as \"--pin\"")]
    Flag(String),
    /// It would be looked for everywhere.
    #[error(
        "{0:?} does not tell which names to mask; give at least two letters of them in a row, such as \"*_PIN\""
    )]
    Name(String),
    /// Not a regular expression, or too large when compiled.
    #[error("the pattern {name:?} is not usable: {source}; mend or shorten it")]
    Pattern {
        /// The name that the pattern was given.
        name: String,
        /// What is wrong.
        source: Box<regex::Error>,
    },
}

/// Masks secrets.
pub struct Redactor {
    hints: Hints,
    programs: Programs,
    custom: Custom,
}

impl Redactor {
    /// Checks the options and compiles what is looked for.
    ///
    /// # Errors
    ///
    /// The first option that is not usable.
    pub fn new(options: &Options) -> Result<Self, RedactError> {
        let custom = Custom::new(options)?;
        Ok(Self { hints: Hints::new(custom.hints()), programs: Programs::new(), custom })
    }

    /// The arguments with their secrets masked; `None` if there are none.
    ///
    /// Each argument is ended by a zero byte, the first is `argv[0]`. The last one may have no zero byte:
    /// then it is taken to have lost its end, and what is left of a secret there is masked too.
    #[must_use]
    pub fn args(&self, args: &[u8]) -> Option<Box<[u8]>> {
        settle(args, |args| self.mask_args(args)).map(Vec::into_boxed_slice)
    }

    /// `NAME=value` of an environment variable with its secrets masked; `None` if there are none. It is taken
    /// to be whole.
    #[must_use]
    pub fn text(&self, text: &[u8]) -> Option<Vec<u8>> {
        settle(text, |text| self.mask_variable(text))
    }

    fn mask_args(&self, args: &[u8]) -> Option<Vec<u8>> {
        let mut masks = Masks::default();
        let mut context = Context::default();
        Walk { text: args, programs: &self.programs, context: &mut context, masks: &mut masks }.block();
        context.harmless.sort_unstable_by_key(|span| span.start);
        let cut = args.last().is_some_and(|&last| last != 0);
        self.mask(args, &context, cut, masks)
    }

    fn mask_variable(&self, text: &[u8]) -> Option<Vec<u8>> {
        let context = Context { is_variable: true, ..Context::default() };
        self.mask(text, &context, false, Masks::default())
    }

    fn mask(&self, text: &[u8], context: &Context, cut: bool, mut masks: Masks) -> Option<Vec<u8>> {
        Scan::new(text, &self.custom, context, cut, &mut masks).run(&self.hints);
        self.custom.find(text, &mut masks);
        masks.apply(text)
    }
}

/// Masks until nothing is left to mask.
fn settle(text: &[u8], mask: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut masked = mask(text)?;
    for _ in 0..ROUNDS {
        match mask(&masked) {
            Some(again) => masked = again,
            None => return Some(masked),
        }
    }
    let mut whole = Masks::default();
    arguments(&masked).for_each(|argument| whole.add(argument));
    Some(whole.apply(&masked).unwrap_or(masked))
}
