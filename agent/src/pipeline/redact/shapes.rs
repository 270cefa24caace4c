//! Tokens that are known by how they look, wherever they are.

use super::mask::Span;

/// How much of a token has to be there where the rest was cut off.
const CUT: usize = 4;
/// So many bytes after the prefix, and no fewer than there have to be, tell whether it is a token.
const DECISIVE: usize = 32;

/// A kind of token: what it begins with, and what follows.
struct Shape {
    prefix: &'static str,
    /// Bytes that may follow.
    tail: fn(u8) -> bool,
    /// So many of them, or more.
    least: usize,
    check: Check,
}

/// What else has to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Nothing: the prefix is found nowhere else.
    Nothing,
    /// Digits, and letters, are among the tail; so many bytes and not more, if a number is given.
    Mixed(Option<usize>),
    /// The prefix is an address, which stays.
    Address,
    /// Digits are before it, and stay with the first byte: the number of a bot.
    Bot,
}

const fn shape(prefix: &'static str, tail: fn(u8) -> bool, least: usize) -> Shape {
    Shape { prefix, tail, least, check: Check::Nothing }
}

const fn mixed(prefix: &'static str, tail: fn(u8) -> bool, least: usize) -> Shape {
    Shape { prefix, tail, least, check: Check::Mixed(None) }
}

const fn exact(prefix: &'static str, tail: fn(u8) -> bool, length: usize) -> Shape {
    Shape { prefix, tail, least: length, check: Check::Mixed(Some(length)) }
}

const fn address(prefix: &'static str) -> Shape {
    Shape { prefix, tail: path, least: 16, check: Check::Address }
}

const fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

const fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

const fn base64url(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

const fn dotted(byte: u8) -> bool {
    base64url(byte) || byte == b'.'
}

const fn path(byte: u8) -> bool {
    base64url(byte) || matches!(byte, b'/' | b'@' | b'%')
}

const fn hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// By what issues them. Lengths are those of today's tokens or a little less.
const SHAPES: &[Shape] = &[
    // 1Password, Age, Atlassian
    shape("ops_eyJ", base64url, 40),
    shape("AGE-SECRET-KEY-1", alnum, 40),
    shape("ATATT3x", |byte| base64url(byte) || byte == b'=', 40),
    // DigitalOcean, Discord, Docker, Doppler
    shape("dop_v1_", hex, 40),
    shape("doo_v1_", hex, 40),
    shape("dor_v1_", hex, 40),
    address("discord.com/api/webhooks/"),
    address("discordapp.com/api/webhooks/"),
    shape("dckr_pat_", base64url, 20),
    shape("dp.pt.", alnum, 30),
    // GitHub
    shape("ghp_", alnum, 30),
    shape("gho_", alnum, 30),
    shape("ghu_", alnum, 30),
    shape("ghs_", dotted, 30),
    shape("ghr_", alnum, 30),
    shape("github_pat_", word, 40),
    // GitLab
    shape("glpat-", dotted, 20),
    shape("glrt-", dotted, 20),
    shape("gldt-", dotted, 20),
    shape("glptt-", dotted, 20),
    shape("glcbt-", dotted, 20),
    shape("glsoat-", dotted, 20),
    // Google, Grafana, Hugging Face
    mixed("AIza", base64url, 35),
    mixed("ya29.", base64url, 20),
    shape("glsa_", word, 30),
    mixed("hf_", alnum, 30),
    // Linear, Microsoft, npm, OpenAI and Anthropic, PyPI, Postman
    shape("lin_api_", alnum, 30),
    address("webhook.office.com/webhookb2/"),
    mixed("npm_", alnum, 36),
    mixed("sk-", base64url, 20),
    shape("pypi-AgE", base64url, 50),
    shape("PMAK-", base64url, 40),
    // RubyGems, SendGrid, Shopify
    shape("rubygems_", hex, 40),
    mixed("SG.", dotted, 50),
    shape("shpat_", hex, 30),
    shape("shpss_", hex, 30),
    // Slack
    address("hooks.slack.com/services/"),
    address("hooks.slack.com/workflows/"),
    address("hooks.slack.com/triggers/"),
    shape("xapp-", base64url, 16),
    shape("xoxa-", base64url, 10),
    shape("xoxb-", base64url, 10),
    shape("xoxe-", base64url, 10),
    shape("xoxe.xoxp-", base64url, 10),
    shape("xoxp-", base64url, 10),
    shape("xoxr-", base64url, 10),
    shape("xoxs-", base64url, 10),
    // Stripe, Tailscale
    shape("sk_live_", alnum, 16),
    shape("sk_test_", alnum, 16),
    shape("rk_live_", alnum, 16),
    shape("whsec_", |byte| alnum(byte) || matches!(byte, b'+' | b'/' | b'='), 24),
    mixed("tskey-", base64url, 20),
    // Telegram, Twilio, Vault
    Shape { prefix: ":AA", tail: base64url, least: 30, check: Check::Bot },
    exact("SK", hex, 32),
    shape("hvs.", base64url, 20),
    shape("hvb.", base64url, 20),
    shape("hvr.", base64url, 20),
    exact("s.", alnum, 24),
];

/// What begins a JSON Web Token: `{"` in base64.
pub const JWT: &str = "eyJ";
/// A token of which both parts are there is not shorter than this.
const SHORTEST_JWT: usize = 30;

/// What tokens begin with, row by row.
pub fn prefixes() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.prefix)
}

/// The secret that begins at the offset, where the prefix of the row is; `end` is where its argument ends, and `cut` whether that has lost
/// its end.
pub fn find(row: usize, text: &[u8], start: usize, end: usize, cut: bool) -> Option<Span> {
    let shape = SHAPES.get(row)?;
    let before = &text[..start];
    let after = &text[start + shape.prefix.len()..end];
    // The first bytes decide, so that many beginnings in one long run cost little each.
    let window = after.len().min(DECISIVE.max(shape.least) + 1);
    let decisive = &after[..run(&after[..window], shape.tail)];
    let cut = cut && decisive.len() == after.len();
    let long_enough = decisive.len() >= if cut { CUT } else { shape.least };
    let fits = match shape.check {
        Check::Nothing | Check::Address => begins(before),
        Check::Mixed(exactly) => {
            begins(before)
                && decisive.iter().any(u8::is_ascii_digit)
                && decisive.iter().any(u8::is_ascii_alphabetic)
                && exactly.is_none_or(|exactly| decisive.len() == exactly || cut && decisive.len() < exactly)
        }
        Check::Bot => before.iter().rev().take(8).filter(|byte| byte.is_ascii_digit()).count() == 8,
    };
    let kept = match shape.check {
        Check::Nothing | Check::Mixed(_) => 0,
        Check::Address => shape.prefix.len(),
        Check::Bot => 1,
    };
    (long_enough && fits)
        .then(|| Span::new(start + kept, start + shape.prefix.len() + run(after, shape.tail)))
}

/// The JSON Web Token that begins at the offset, or else where the search may go on.
pub fn find_jwt(text: &[u8], start: usize, end: usize, cut: bool) -> Result<Span, usize> {
    if !begins(&text[..start]) {
        return Err(start);
    }
    let run = Span::new(start, start + run(&text[start..end], dotted));
    let length = run.end - run.start;
    let whole = length >= SHORTEST_JWT && run.of(text).contains(&b'.');
    let cut = cut && run.end == end && length >= CUT + JWT.len();
    if whole || cut { Ok(run) } else { Err(run.end) }
}

/// A token may begin after these bytes: not within a word, but after an escape (`%3D`, `\n`).
fn begins(before: &[u8]) -> bool {
    match before {
        [.., b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => true,
        [.., b'\\', b'n' | b'r' | b't'] | [] => true,
        [.., last] => !word(*last),
    }
}

fn run(text: &[u8], fits: fn(u8) -> bool) -> usize {
    text.iter().take_while(|&&byte| fits(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_found_by_its_own_row() {
        for (row, shape) in SHAPES.iter().enumerate() {
            let tail = "0a1b".repeat(20);
            let length = match shape.check {
                Check::Mixed(Some(length)) => length,
                _ => shape.least,
            };
            let (before, kept) = match shape.check {
                Check::Address => ("https://", shape.prefix.len()),
                Check::Bot => ("bot12345678", 1),
                _ => ("=", 0),
            };
            let text = format!("{before}{}{} x", shape.prefix, &tail[..length]);
            let end = text.len();
            assert_eq!(
                find(row, text.as_bytes(), before.len(), end, false),
                Some(Span::new(before.len() + kept, end - 2)),
                "{text}"
            );
            let short = format!("{before}{}{} x", shape.prefix, &tail[..length - 1]);
            assert_eq!(find(row, short.as_bytes(), before.len(), short.len(), false), None, "{short}");
            let cut = format!("{before}{}0a1b", shape.prefix);
            assert!(find(row, cut.as_bytes(), before.len(), cut.len(), true).is_some(), "{cut}");
        }
    }
}
