//! Which names have a secret for a value: of options, environment variables, fields of forms and JSON,
//! headers.
//!
//! The last word of a name tells what the value is: `db-password` is a password, `password-file` a file.
//! Case, and what is between the words, does not matter: `api-key`, `api_key`, `apiKey`, `X-API-KEY`.

/// How long a name may be, in bytes; of a longer one the end is looked at.
const LONGEST: usize = 128;
/// A private key is not shorter than this; its name is often followed by a file or by another name.
const SHORTEST_KEY: usize = 32;
/// Signatures of signed addresses are not shorter than this, where it is not clear that they are in one.
const SHORTEST_SIGNATURE: usize = 20;

/// Which values of a name are secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All, short of those that say that there is none (`true`, `null`), and of references (`$NAME`).
    Any,
    /// All that do not look like the path of a file.
    NoPath,
    /// Text long enough for a private key.
    KeyText,
    /// The signature of an address, after `?` or `&`.
    Query,
    /// What may be one, or the next command of a shell: `a&sig=x`.
    LongQuery,
    /// What has `=`: without it, the name of a file.
    Cookie,
}

/// A word for a secret.
struct Noun {
    text: &'static str,
    kind: Kind,
    /// A word by itself only: `pass` is none in `bypass`.
    word: bool,
}

const fn noun(text: &'static str, kind: Kind) -> Noun {
    Noun { text, kind, word: false }
}

const fn word(text: &'static str, kind: Kind) -> Noun {
    Noun { text, kind, word: true }
}

/// What ends the name of a secret. All contain one of [`HINTS`].
const NOUNS: &[Noun] = &[
    noun("password", Kind::Any),
    noun("passwd", Kind::Any),
    noun("passphrase", Kind::Any),
    noun("passcode", Kind::Any),
    noun("pwd", Kind::NoPath),
    word("pass", Kind::Any),
    noun("adminpass", Kind::Any),
    noun("authpass", Kind::Any),
    noun("bindpass", Kind::Any),
    noun("dbpass", Kind::Any),
    noun("keypass", Kind::Any),
    noun("requirepass", Kind::Any),
    noun("rootpass", Kind::Any),
    noun("smtppass", Kind::Any),
    noun("sshpass", Kind::Any),
    noun("storepass", Kind::Any),
    noun("userpass", Kind::Any),
    noun("secret", Kind::NoPath),
    noun("token", Kind::NoPath),
    word("jwt", Kind::NoPath),
    word("psk", Kind::Any),
    noun("accesskey", Kind::NoPath),
    noun("accountkey", Kind::NoPath),
    noun("apikey", Kind::NoPath),
    noun("appkey", Kind::NoPath),
    noun("authkey", Kind::NoPath),
    noun("encryptionkey", Kind::NoPath),
    noun("masterkey", Kind::NoPath),
    noun("secretkey", Kind::NoPath),
    noun("sharedkey", Kind::NoPath),
    noun("signingkey", Kind::NoPath),
    noun("storagekey", Kind::NoPath),
    noun("subscriptionkey", Kind::NoPath),
    noun("privatekey", Kind::KeyText),
    noun("deploykey", Kind::KeyText),
    noun("credential", Kind::NoPath),
    noun("credentials", Kind::NoPath),
    word("cred", Kind::NoPath),
    noun("creds", Kind::NoPath),
    word("bearer", Kind::NoPath),
    noun("masterauth", Kind::Any),
    noun("rediscliauth", Kind::Any),
    word("sig", Kind::Query),
    noun("signature", Kind::Query),
    word("cookie", Kind::Cookie),
];

/// Where a name is worth a look. In lower case.
pub const HINTS: &[&str] = &[
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "cred",
    "auth",
    "bearer",
    "jwt",
    "psk",
    "sig=",
    "code=",
    "signature",
    "identified",
    "cookie",
];

/// Words after the noun that leave it what it is: `SECRET_KEY_BASE`, `password_value`.
const TAILS: &[&str] = &[
    "value",
    "base",
    "b64",
    "base64",
    "string",
    "text",
    "plain",
    "plaintext",
    "new",
    "old",
    "prod",
    "dev",
    "test",
    "staging",
    "primary",
    "secondary",
];

/// First words that make it an option without a value: `--no-password`, `--ask-vault-pass`.
const SWITCHES: &[&str] = &[
    "no", "not", "without", "with", "disable", "enable", "ask", "prompt", "require", "required", "use",
    "show", "hide", "print", "skip", "has", "is", "allow", "generate", "random", "get", "list", "by",
];

/// First words of a number: `--max-token`.
const QUANTITIES: &[&str] = &["max", "min", "num", "count", "limit"];

/// What is before `token` where it marks a place in a list or text, and opens nothing.
const PLACES: &[&str] = &[
    "next",
    "starting",
    "continuation",
    "page",
    "pagination",
    "request",
    "idempotency",
    "start",
    "end",
    "stop",
    "pad",
    "bos",
    "eos",
    "unk",
    "mask",
    "change",
    "special",
];

/// The directory of a shell is not a password.
const DIRECTORIES: [&[u8]; 2] = [b"PWD", b"OLDPWD"];

/// Values that say yes, no or nothing.
const PLAIN: &[&str] = &["true", "false", "yes", "no", "on", "off", "none", "null", "nil", "undefined"];

/// Ends of names of files, where there is no directory before them.
const EXTENSIONS: &[&str] = &[
    "asc", "cer", "cfg", "conf", "crt", "der", "env", "gpg", "ini", "jks", "json", "key", "p12", "pem",
    "pfx", "pub", "txt", "yaml", "yml",
];

/// Bytes that names are made of.
pub const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Which values of the name are secret, if it is the name of a secret. Dashes of an option may be before it.
pub fn kind(name: &[u8]) -> Option<Kind> {
    let name = core(name);
    if DIRECTORIES.contains(&name) || is(first_word(name), QUANTITIES) {
        return None;
    }
    let (noun, start) = NOUNS.iter().find_map(|noun| Some((noun, starts_at(name, noun.text, noun.word)?)))?;
    let place = noun.text == "token" && is(last_word(&name[..start]), PLACES);
    (!place).then_some(noun.kind)
}

/// The option of that name takes no value.
pub fn is_switch(name: &[u8]) -> bool {
    is(first_word(undashed(name)), SWITCHES)
}

/// The value of such a name is a secret.
pub fn is_secret(kind: Kind, value: &[u8]) -> bool {
    if is_plain(value) {
        return false;
    }
    match kind {
        Kind::Any | Kind::Query => true,
        Kind::NoPath => !is_path(value),
        Kind::KeyText => value.len() >= SHORTEST_KEY && !is_path(value),
        Kind::LongQuery => value.len() >= SHORTEST_SIGNATURE,
        Kind::Cookie => value.contains(&b'='),
    }
}

/// Nothing, a word for yes or no, one digit, asterisks, or a reference that was not resolved.
pub fn is_plain(value: &[u8]) -> bool {
    value.len() < 2 && value.iter().all(u8::is_ascii_digit)
        || is(value, PLAIN)
        || value.iter().all(|&byte| byte == b'*')
        || is_reference(value)
}

/// Stands for a value in a template, or in a shell: `${NAME}`, `$(command)`, `$NAME`, `{{ name }}`. A
/// dollar before small letters may as well begin a password.
fn is_reference(value: &[u8]) -> bool {
    match value {
        [b'$', b'{', .., b'}'] | [b'{', b'{', .., b'}', b'}'] | [b'$', b'(', ..] | [b'`', ..] => true,
        [b'$', name @ ..] => {
            name.first().is_some_and(u8::is_ascii_uppercase)
                && name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
        }
        _ => false,
    }
}

/// `$name`, as a shell that reads the text would resolve.
pub fn is_shell_variable(value: &[u8]) -> bool {
    match value {
        [b'$', name @ ..] => {
            !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        }
        _ => false,
    }
}

/// The path of a file, and not random text with slashes in it: that has large letters too.
fn is_path(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"@").unwrap_or(value);
    let value = value.strip_prefix(b"file:").unwrap_or(value);
    let last = value.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let extension = match last.iter().rposition(|&byte| byte == b'.') {
        Some(dot) => &last[dot + 1..],
        None => &[],
    };
    if !value.iter().all(|&byte| is_name_byte(byte) || matches!(byte, b'/' | b'~')) {
        return false;
    }
    let rooted = [b"/".as_slice(), b"./", b"../", b"~/"].iter().any(|root| value.starts_with(root));
    is(extension, EXTENSIONS) || rooted && !value.iter().any(u8::is_ascii_uppercase)
}

/// The name from its first to its last word that matters, no longer than [`LONGEST`].
fn core(name: &[u8]) -> &[u8] {
    let name = undashed(name);
    let mut name = &name[name.len().saturating_sub(LONGEST)..];
    loop {
        let tail = TAILS.iter().find_map(|tail| starts_at(name, tail, true)).filter(|start| *start > 0);
        name = match (tail, name) {
            (Some(start), _) => &name[..start],
            (None, [before @ .., last]) if is_separator(*last) || last.is_ascii_digit() => before,
            _ => return name,
        };
    }
}

fn undashed(name: &[u8]) -> &[u8] {
    let dashes = name.iter().take_while(|&&byte| byte == b'-').count();
    &name[dashes..]
}

const fn is_separator(byte: u8) -> bool {
    matches!(byte, b'_' | b'-' | b'.')
}

/// Where the noun starts in a name that ends with it.
fn starts_at(name: &[u8], noun: &str, word: bool) -> Option<usize> {
    let mut rest = noun.as_bytes();
    let mut at = name.len();
    while let [before @ .., wanted] = rest {
        at = at.checked_sub(1)?;
        if name[at].eq_ignore_ascii_case(wanted) {
            rest = before;
        } else if !is_separator(name[at]) {
            return None;
        }
    }
    (!word || begins_word(name, at)).then_some(at)
}

/// A word begins here: after something that separates, or with a large letter after a small one.
fn begins_word(name: &[u8], at: usize) -> bool {
    match at.checked_sub(1).map(|before| name[before]) {
        None => true,
        Some(before) => is_separator(before) || before.is_ascii_lowercase() && name[at].is_ascii_uppercase(),
    }
}

fn first_word(name: &[u8]) -> &[u8] {
    let end = (1..name.len()).find(|&at| is_separator(name[at]) || begins_word(name, at));
    &name[..end.unwrap_or(name.len())]
}

fn last_word(name: &[u8]) -> &[u8] {
    let name = match name {
        [before @ .., last] if is_separator(*last) => before,
        _ => name,
    };
    let start = (1..name.len()).rev().find(|&at| begins_word(name, at));
    &name[start.unwrap_or(0)..]
}

/// The same name: case does not matter, and `-` is as `_`.
pub fn is_same(name: &[u8], other: &[u8]) -> bool {
    let normal = |byte: &u8| if *byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().map(normal).eq(other.iter().map(normal))
}

fn is(text: &[u8], list: &[&str]) -> bool {
    list.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_in_all_spellings() {
        for name in [
            "--password",
            "-password",
            "PASSWORD",
            "db_password",
            "--http-proxy-password",
            "DB_PASS",
            "MYSQL_PWD",
            "PGPASSWORD",
            "ROOTPASSWORD2",
            "keyStorePassword",
            "-Djavax.net.ssl.trustStorePassword",
            "--apikey",
            "--api-key",
            "--api_key",
            "apiKey",
            "X-API-KEY",
            "AWS_SECRET_ACCESS_KEY",
            "SECRET_KEY_BASE",
            "_authToken",
            "client-secret",
            "GITLAB_TOKEN_1",
            "--private-key",
            "secretString",
            "REDISCLI_AUTH",
            "SSHPASS",
        ] {
            assert!(kind(name.as_bytes()).is_some(), "{name}");
        }
    }

    #[test]
    fn look_alikes_are_not() {
        for name in [
            "--password-file",
            "PASSWORD_FILE",
            "--passwordless",
            "--password-stdin",
            "--token-ttl",
            "--tokenizer",
            "--max-tokens",
            "MAX_TOKEN",
            "--secret-name",
            "--key-file",
            "--key",
            "PWD",
            "OLDPWD",
            "SSH_AUTH_SOCK",
            "AWS_ACCESS_KEY_ID",
            "--bypass",
            "compass",
            "next-token",
            "nextToken",
            "--sort-key",
            "GPG_KEY",
            "PASSWORD_STORE",
            "secrets",
            "",
            "-",
            "1",
        ] {
            assert_eq!(kind(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn options_that_take_no_value_begin_with_a_verb() {
        assert!(is_switch(b"--no-password"));
        assert!(is_switch(b"--ask-vault-pass"));
        assert!(!is_switch(b"--node-password"));
    }

    #[test]
    fn paths_are_told_from_keys() {
        for path in
            ["/run/secrets/token", "./a-b", "~/.ssh/id", "/etc/X.pem", "Key.pem", "@token.txt", "file:/x/y"]
        {
            assert!(is_path(path.as_bytes()), "{path}");
        }
        for key in ["/aB3x/Kdd92", "hunter2", "a.b", "+/x", "/x y"] {
            assert!(!is_path(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn every_noun_has_a_hint() {
        for noun in NOUNS {
            let with_sign = format!("{}=", noun.text);
            assert!(HINTS.iter().any(|hint| with_sign.contains(hint)), "{}", noun.text);
        }
    }
}
