//! What the configuration masks beyond what is always masked.

use regex::bytes::{Regex, RegexBuilder};
use wildmatch::WildMatch;

use super::{
    Options, RedactError,
    mask::{Masks, Span, arguments},
    names::{Kind, is_name_byte, is_same},
};

/// Memory that one pattern may take, in bytes: once compiled, and once more for what matching remembers.
const PATTERN_SIZE: usize = 256 << 10;
/// From so many matches on, the rest of an argument is masked: a pattern that looks far ahead for each of
/// many matches would make the work grow with the square of the length.
const MATCHES: usize = 64;

/// Checked and compiled.
pub struct Custom {
    flags: Vec<String>,
    names: Vec<WildMatch>,
    patterns: Vec<Regex>,
    /// Parts of names.
    hints: Vec<String>,
}

impl Custom {
    pub fn new(options: &Options) -> Result<Self, RedactError> {
        let mut hints = Vec::new();
        let mut flags = Vec::new();
        for flag in &options.flags {
            let bare = flag.trim_start_matches('-');
            if bare.len() < 2 || !bare.bytes().all(is_name_byte) {
                return Err(RedactError::Flag(flag.clone()));
            }
            hints.push(bare.to_owned());
            flags.push(bare.to_owned());
        }
        let mut names = Vec::new();
        for name in &options.names {
            let literal = name.split(['*', '?']).max_by_key(|part| part.len()).unwrap_or_default();
            if literal.len() < 2 || !literal.bytes().all(is_name_byte) {
                return Err(RedactError::Name(name.clone()));
            }
            hints.push(literal.to_owned());
            names.push(WildMatch::new_case_insensitive(name));
        }
        let mut patterns = Vec::new();
        for (name, pattern) in &options.patterns {
            let compiled = RegexBuilder::new(pattern)
                .unicode(false)
                .size_limit(PATTERN_SIZE)
                .dfa_size_limit(PATTERN_SIZE)
                .build()
                .map_err(|source| RedactError::Pattern { name: name.clone(), source: Box::new(source) })?;
            patterns.push(compiled);
        }
        Ok(Self { flags, names, patterns, hints })
    }

    /// What is found within the names.
    pub fn hints(&self) -> impl Iterator<Item = &str> {
        self.hints.iter().map(String::as_str)
    }

    /// Which values of the name are secret, if it was given.
    pub fn kind(&self, name: &[u8], flag: bool) -> Option<Kind> {
        /// No one names anything like this.
        const LONGEST: usize = 128;
        if self.flags.is_empty() && self.names.is_empty() || name.len() > LONGEST {
            return None;
        }
        let bare = std::str::from_utf8(name).ok()?.trim_start_matches('-');
        let known = flag && self.flags.iter().any(|known| is_same(known.as_bytes(), bare.as_bytes()))
            || self.names.iter().any(|glob| glob.matches(bare));
        known.then_some(Kind::Any)
    }

    /// Adds what the patterns match: their first group, or all of it if they have none.
    pub fn find(&self, block: &[u8], masks: &mut Masks) {
        if self.patterns.is_empty() {
            return;
        }
        for argument in arguments(block) {
            for pattern in &self.patterns {
                find(pattern, block, argument, masks);
            }
        }
    }
}

fn find(pattern: &Regex, block: &[u8], argument: Span, masks: &mut Masks) {
    for (count, captures) in pattern.captures_iter(argument.of(block)).enumerate() {
        let Some(secret) = captures.get(1).or_else(|| captures.get(0)) else { continue };
        let start = argument.start + secret.start();
        if count == MATCHES {
            masks.add(argument.from(start));
            return;
        }
        masks.add(Span::new(start, argument.start + secret.end()));
    }
}
