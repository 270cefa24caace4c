//! Secrets that are told by what is around them in a text, or by how they look: values of named fields,
//! passwords in addresses, headers, private keys, tokens.
//!
//! One pass finds the places worth a look. What is read from there is not read again for a
//! later place, so that the work stays in proportion to the text however it is made up.

use super::{
    custom::Custom,
    hints::{ADDRESS, Hints, Place},
    mask::{Masks, Span, position},
    names::{self, Kind},
    shapes,
    shell::{self, Quotes},
};

/// How far a password in an address is looked for when it has bytes that may not be in one.
const FAR: usize = 256;
/// Schemes of which the part before the host is a user, never a token.
const USER_SCHEMES: [&str; 7] = ["ssh", "git+ssh", "svn+ssh", "sftp", "scp", "rsync", "file"];

/// Ends what [`Place::Pem`] begins.
const PEM_END: &[u8] = b"-----END ";
/// After its begin, such as `OPENSSH PRIVATE KEY-----`; all are shorter than this.
const LONGEST_PEM_LABEL: usize = 48;

/// Words of SQL before a quoted password, which may have `BY`, or `FOR` an account and `=`, between.
const SQL: [&str; 5] =
    ["password", "identified", "caching_sha2_password", "mysql_native_password", "sha256_password"];
/// Names of passwords in whatever case: of others a colon may separate the name of an image from its tag.
const PASSWORDS: [&str; 3] = ["password", "passwd", "passphrase"];

/// In the names of hosts where a user without a password is often a token. Not in here: those that put
/// the name of an organization there.
const FORGES: [&str; 3] = ["git", "bitbucket", "codeberg"];
/// A user there with a digit is a token from this length on.
const SHORTEST_USER_TOKEN: usize = 12;
/// With what a code of OAuth is exchanged: beside it, `code=` is one.
const CLIENT_SECRET: &[u8] = b"client_secret";

/// Words of the `Authorization` header after which one word follows, and that is the secret.
const SCHEMES: [&str; 9] =
    ["basic", "bearer", "token", "negotiate", "ntlm", "apikey", "bot", "geniekey", "ssws"];
/// Headers that come with no blank after the colon just as well. Those with `X-` are others.
const HEADERS: [&str; 5] = ["private-token", "job-token", "deploy-token", "api-key", "apikey"];
/// A word after `Bearer` in running text is a token from this length on, if digits are in it.
const SHORTEST_BEARER: usize = 16;

/// What the arguments are, as far as their program tells.
#[derive(Debug, Default)]
pub struct Context {
    /// From the first to the last text that a shell reads.
    pub script: Span,
    /// Values that are no secrets although their names say so, in order.
    pub harmless: Vec<Span>,
    /// It is no block of arguments but one `NAME=value`.
    pub is_variable: bool,
}

/// Finds what is to be masked.
pub struct Scan<'a> {
    text: &'a [u8],
    custom: &'a Custom,
    context: &'a Context,
    /// The last argument has lost its end.
    cut: bool,
    masks: &'a mut Masks,
    /// The argument that is looked at.
    argument: Span,
    /// Names, and values, were read up to here.
    named: usize,
    /// Tokens, keys and addresses were.
    shaped: usize,
    quotes: Quotes,
    /// Whether [`CLIENT_SECRET`] is anywhere, once it was looked for.
    exchanges_code: Option<bool>,
}

/// What follows a name.
enum Field {
    /// `=`, then the value from here.
    Equals(usize),
    /// A colon; whether the name was quoted is told with it.
    Colon(usize, bool),
    /// A blank, then the next word from here.
    Blank(usize),
    /// The end of the argument.
    End,
    /// Something else: the name is just a word.
    Other,
}

impl<'a> Scan<'a> {
    pub fn new(
        text: &'a [u8],
        custom: &'a Custom,
        context: &'a Context,
        cut: bool,
        masks: &'a mut Masks,
    ) -> Self {
        let argument = argument_from(text, 0);
        Self {
            text,
            custom,
            context,
            cut,
            masks,
            argument,
            named: 0,
            shaped: 0,
            quotes: Quotes::default(),
            exchanges_code: None,
        }
    }

    /// Looks at all places that the hints find.
    pub fn run(mut self, hints: &Hints) {
        hints.find(self.text, |found, place| {
            self.enter_argument(found.start);
            match place {
                Place::Address => self.address(found.end),
                Place::DataSource => self.data_source(found.start),
                Place::Pem => self.private_key(found.end),
                Place::Jwt => self.json_web_token(found.start),
                Place::Token(row) => self.token(row, found.start),
                Place::Name => self.name(found),
            }
        });
    }

    fn enter_argument(&mut self, at: usize) {
        while at > self.argument.end {
            self.argument = argument_from(self.text, self.argument.end + 1);
        }
    }

    fn is_cut(&self, argument: Span) -> bool {
        self.cut && argument.end == self.text.len()
    }

    fn in_script(&self, at: usize) -> bool {
        self.context.script.contains(at)
    }

    fn is_harmless(&self, value: Span) -> bool {
        let after = self.context.harmless.partition_point(|span| span.start <= value.start);
        after > 0 && value.start < self.context.harmless[after - 1].end
    }

    // === Tokens and keys ===

    fn token(&mut self, row: usize, start: usize) {
        if start >= self.shaped
            && let Some(token) =
                shapes::find(row, self.text, start, self.argument.end, self.is_cut(self.argument))
        {
            self.shaped = token.end;
            self.masks.add(token);
        }
    }

    fn json_web_token(&mut self, start: usize) {
        if start < self.shaped {
            return;
        }
        match shapes::find_jwt(self.text, start, self.argument.end, self.is_cut(self.argument)) {
            Ok(token) => {
                self.shaped = token.end;
                self.masks.add(token);
            }
            Err(end) => self.shaped = self.shaped.max(end),
        }
    }

    fn private_key(&mut self, label: usize) {
        if label < self.shaped {
            return;
        }
        let rest = self.argument.from(label);
        let window = &rest.of(self.text)[..LONGEST_PEM_LABEL.min(rest.end - rest.start)];
        let Some(dashes) = window.windows(5).position(|bytes| bytes == b"-----") else { return };
        let named = &window[..dashes];
        if !named.ends_with(b"PRIVATE KEY") && !named.ends_with(b"PRIVATE KEY BLOCK") {
            return;
        }
        let body = rest.skip(dashes + 5);
        let length = body.of(self.text).windows(PEM_END.len()).position(|bytes| bytes == PEM_END);
        let body = length.map_or(body, |length| Span::new(body.start, body.start + length));
        self.shaped = body.end;
        self.named = self.named.max(body.end);
        self.masks.add(body);
    }

    // === Addresses ===

    /// `://` ends before the offset.
    fn address(&mut self, start: usize) {
        let rest = self.argument.from(start);
        let bytes = rest.of(self.text);
        let ends_authority = |byte: &u8| {
            matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'\\' | b'`') || byte.is_ascii_whitespace()
        };
        let length = bytes.iter().position(ends_authority).unwrap_or(bytes.len());
        let authority = &bytes[..length];
        let user = match authority.iter().rposition(|&byte| byte == b'@') {
            Some(at) => at,
            None => match at_sign_further_on(bytes, length) {
                Some(at) => at,
                None if self.is_cut(rest) && length == bytes.len() && !is_host(authority) => length,
                None => return,
            },
        };
        let host = bytes.get(user + 1..).unwrap_or_default();
        let host = &host[..host.iter().take(FAR).position(ends_authority).unwrap_or(host.len().min(FAR))];
        self.user_information(Span::new(start, start + user), start - ADDRESS.len(), host);
    }

    /// Masks the password, and a user that is a token; the scheme ends at the offset.
    fn user_information(&mut self, user: Span, scheme: usize, host: &[u8]) {
        let bytes = user.of(self.text);
        let colon = position(bytes, b':');
        if let Some(colon) = colon {
            let password = user.skip(colon + 1);
            if names::is_secret(Kind::Any, password.of(self.text)) {
                self.masks.add(password);
            }
        }
        let name = &bytes[..colon.unwrap_or(bytes.len())];
        let before = &self.text[self.argument.start..scheme];
        let only_user = USER_SCHEMES.iter().any(|scheme| ends_with_word(before, scheme));
        let token = || is_random(name) || colon.is_none() && is_forge(host) && is_user_token(name);
        if !only_user && token() {
            self.masks.add(Span::new(user.start, user.start + name.len()));
        }
    }

    /// `user:password@tcp(host)`, where the offset is that of the at sign.
    fn data_source(&mut self, at: usize) {
        let start = self.argument.start.max(self.shaped).max(at.saturating_sub(FAR)).min(at);
        let bytes = &self.text[start..at];
        let begins = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'/');
        let start = bytes.iter().rposition(begins).map_or(start, |before| start + before + 1);
        self.shaped = self.shaped.max(at);
        let user = Span::new(start, at);
        if let Some(colon) = position(user.of(self.text), b':') {
            let password = user.skip(colon + 1);
            if names::is_secret(Kind::Any, password.of(self.text)) {
                self.masks.add(password);
            }
        }
    }

    // === Named values ===

    fn name(&mut self, hit: Span) {
        if hit.start < self.named {
            return;
        }
        let lower = self.argument.start.max(self.named);
        let before = self.text[lower..hit.start].iter().rev();
        let start = hit.start - before.take_while(|&&byte| names::is_name_byte(byte)).count();
        let after = self.argument.from(hit.start).of(self.text).iter();
        let end = hit.start + after.take_while(|&&byte| names::is_name_byte(byte)).count();
        // The letter of an escape (`\n`) is no part of it.
        let escaped = start < hit.start && self.before(start) == Some(b'\\');
        let name = Span::new(start + usize::from(escaped), end);
        let start = name.start;
        self.named = name.end.max(self.named);

        let bytes = name.of(self.text);
        let flag = bytes.first() == Some(&b'-') && self.begins_word(start);
        if is_header(bytes, "authorization") && self.authorization(name, flag) {
            return;
        }
        if bytes.eq_ignore_ascii_case(b"bearer") && self.bearer(name.end) {
            return;
        }
        if self.sql(name) {
            return;
        }
        let kind = self.custom.kind(bytes, flag).or_else(|| names::kind(bytes));
        let Some(kind) = kind.or_else(|| self.code(name)) else { return };
        let kind = match (kind, self.before(start)) {
            (Kind::Query, Some(b'?')) => Kind::Query,
            (Kind::Query, Some(b'&')) if !self.in_script(start) || self.open_quote(start).is_some() => {
                Kind::Query
            }
            (Kind::Query, Some(b'&' | b';')) => Kind::LongQuery,
            (Kind::Query, _) => return,
            (kind, _) => kind,
        };
        match self.field(name) {
            Field::Equals(at) => self.value(name, at, kind, flag),
            Field::Colon(at, true) => self.value(name, at, kind, false),
            Field::Colon(at, false) => self.after_colon(name, at, kind),
            Field::Blank(at) if flag && !names::is_switch(bytes) => self.next_word(at, kind),
            Field::End if flag && start == self.argument.start && !names::is_switch(bytes) => {
                self.next_argument(kind);
            }
            Field::Blank(_) | Field::End | Field::Other => {}
        }
    }

    /// `code=` as OAuth has it.
    fn code(&mut self, name: Span) -> Option<Kind> {
        let field = name.of(self.text) == b"code"
            && matches!(self.before(name.start), None | Some(b'?' | b'&' | b'"' | b'\''));
        if !field {
            return None;
        }
        let text = self.text;
        let exchanged = *self.exchanges_code.get_or_insert_with(|| {
            text.windows(CLIENT_SECRET.len()).any(|bytes| bytes.eq_ignore_ascii_case(CLIENT_SECRET))
        });
        exchanged.then_some(Kind::Any)
    }

    fn before(&self, at: usize) -> Option<u8> {
        (at > self.argument.start).then(|| self.text[at - 1])
    }

    fn begins_word(&self, at: usize) -> bool {
        self.before(at).is_none_or(|byte| {
            byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'[' | b'(' | b',' | b'=')
        })
    }

    fn field(&self, name: Span) -> Field {
        let rest = self.argument.from(name.end);
        let closed = match rest.of(self.text) {
            [b']' | b'\\', b'"' | b'\'', ..] | [b'"' | b'\'', b']', ..] => 2,
            [b']' | b'"' | b'\'', ..] => 1,
            _ => 0,
        };
        let quoted = closed > 0 && !matches!(rest.of(self.text), [b']', b'=', ..]);
        let sign = self.blanks(rest.skip(closed));
        let blank = sign.start > rest.start + closed;
        match sign.of(self.text) {
            [] if closed == 0 && !blank => Field::End,
            [b'=', b'=' | b'~', ..] => Field::Other,
            [b'=', b'>', ..] | [b':', b'=', ..] => Field::Equals(self.blanks(sign.skip(2)).start),
            [b'=', ..] if blank || quoted => Field::Equals(self.blanks(sign.skip(1)).start),
            [b'=', ..] => Field::Equals(sign.start + 1),
            [b':', ..] if quoted => Field::Colon(self.blanks(sign.skip(1)).start, true),
            [b':', ..] if !blank => Field::Colon(sign.start + 1, false),
            [_, ..] if blank && closed == 0 => Field::Blank(sign.start),
            _ => Field::Other,
        }
    }

    fn blanks(&self, span: Span) -> Span {
        span.skip(span.of(self.text).iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count())
    }

    /// Masks the value from the offset on.
    fn value(&mut self, name: Span, at: usize, kind: Kind, flag: bool) {
        let whole = !self.in_script(name.start)
            && (flag && name.start == self.argument.start || self.is_assignment(name));
        let value = if whole { self.argument.from(at) } else { self.value_from(name, at) };
        self.mask_value(value, kind);
    }

    fn mask_value(&mut self, value: Span, kind: Kind) {
        self.named = self.named.max(value.end);
        let bare = value.unquoted(self.text);
        let bytes = bare.of(self.text);
        let reference = self.in_script(value.start) && names::is_shell_variable(bytes);
        if names::is_secret(kind, bytes) && !reference && !self.is_harmless(value) {
            self.masks.add(bare);
        }
    }

    /// `NAME=` as shells write it, that an argument, or the value of its option, consists of.
    fn is_assignment(&self, name: Span) -> bool {
        let bytes = name.of(self.text);
        let upper = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
        if self.context.is_variable {
            return name.start == 0;
        }
        if self.text.get(name.end) != Some(&b'=') || !bytes.iter().all(upper) {
            return false;
        }
        match Span::new(self.argument.start, name.start).of(self.text) {
            [] => true,
            [b'-', option @ .., b'='] if option.len() < 32 => {
                option.iter().all(|&byte| names::is_name_byte(byte))
            }
            _ => false,
        }
    }

    /// A value in a text: quoted, or up to what ends it there.
    fn value_from(&mut self, name: Span, at: usize) -> Span {
        let rest = self.argument.from(at);
        match rest.of(self.text) {
            [b'\\', quote @ (b'"' | b'\''), ..] => {
                let bytes = rest.skip(2).of(self.text);
                let length = bytes.windows(2).position(|pair| pair == [b'\\', *quote]);
                let start = rest.start + 2;
                return Span::new(start, length.map_or(rest.end, |length| start + length));
            }
            [quote @ (b'"' | b'\''), ..] if !self.in_script(at) || self.open_quote(at) != Some(*quote) => {
                let start = rest.start + 1;
                return Span::new(start, shell::quote_end(self.text, rest.skip(1), *quote));
            }
            _ => {}
        }
        let before = self.before(name.start).filter(|byte| matches!(byte, b'"' | b'\''));
        let open = if self.in_script(at) { self.open_quote(at) } else { before };
        if self.in_script(at) && open.is_none() {
            return Span::new(at, shell::word_end(self.text, rest));
        }
        let member = before.is_some();
        let bytes = rest.of(self.text);
        let mut length = bytes.len();
        for (index, byte) in bytes.iter().enumerate() {
            let ends = match byte {
                b'"' | b'\'' => Some(*byte) == open,
                b';' | b'&' => true,
                b'}' | b']' => member,
                b',' => member || is_field(&bytes[index + 1..]),
                byte => byte.is_ascii_whitespace(),
            };
            if ends {
                length = index;
                break;
            }
        }
        // The backslash of an escaped quote.
        if open.is_some() && length > 0 && bytes[length - 1] == b'\\' {
            length -= 1;
        }
        Span::new(at, at + length)
    }

    fn open_quote(&mut self, at: usize) -> Option<u8> {
        self.quotes.open(self.text, self.context.script.from(self.argument.start), at)
    }

    /// After `name:` without quotes. It may be prose, or part of an address.
    fn after_colon(&mut self, name: Span, at: usize, kind: Kind) {
        let bytes = name.of(self.text);
        let value_start = self.blanks(self.argument.from(at)).start;
        let header = self.begins_word(name.start)
            && (bytes.len() > 2 && bytes[..2].eq_ignore_ascii_case(b"x-")
                || HEADERS.iter().any(|header| bytes.eq_ignore_ascii_case(header.as_bytes())));
        if is_header(bytes, "cookie") {
            let value = self.line(name, value_start, false);
            return self.mask_value(value, Kind::Any);
        }
        if self.before(name.start) == Some(b'/') && name.start == self.argument.start + 1 {
            return self.mask_value(self.argument.from(at), kind);
        }
        if value_start == at && !header {
            if self.is_colon_sure(name, at) {
                let flag = name.of(self.text).starts_with(b"-");
                self.value(name, at, kind, flag);
            }
            return;
        }
        let value = self.value_from(name, value_start);
        let line_ends = self
            .argument
            .from(value.end)
            .of(self.text)
            .first()
            .is_none_or(|byte| !matches!(byte, b' ' | b'\t'));
        let quoted = value.start > value_start;
        let bytes = value.of(self.text);
        if header || line_ends || quoted || bytes.iter().any(u8::is_ascii_digit) {
            self.mask_value(value, kind);
        }
    }

    /// `--secret:x`, `PASSWORD:x`, `password:x1`: no prose, path of a module, image or address.
    fn is_colon_sure(&self, name: Span, at: usize) -> bool {
        let value = self.argument.from(at).of(self.text);
        if !self.begins_word(name.start) || matches!(value, [] | [b':' | b'\\', ..] | [b'/', b'/', ..]) {
            return false;
        }
        let bytes = name.of(self.text);
        let upper = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
        if bytes.starts_with(b"-") || bytes.iter().all(upper) {
            return true;
        }
        let word = || value.iter().take_while(|byte| !byte.is_ascii_whitespace());
        PASSWORDS.iter().any(|password| bytes.eq_ignore_ascii_case(password.as_bytes()))
            && word().take(FAR).any(u8::is_ascii_digit)
            && word().take(FAR).any(u8::is_ascii_alphabetic)
    }

    /// The value of an option in a text.
    fn next_word(&mut self, at: usize, kind: Kind) {
        if !self.is_option(at) {
            let value = self.value_from(Span::new(at, at), at);
            self.mask_value(value, kind);
        }
    }

    /// The value of an option that is an argument of its own.
    fn next_argument(&mut self, kind: Kind) {
        let start = self.argument.end + 1;
        if start >= self.text.len() || self.is_option(start) {
            return;
        }
        let value = argument_from(self.text, start);
        self.mask_value(value, kind);
    }

    fn is_option(&self, at: usize) -> bool {
        matches!(self.text.get(at..), Some([b'-', next, ..]) if next.is_ascii_alphabetic() || *next == b'-')
    }

    /// Masks the text after `PASSWORD`, `PASSWORD FOR x =`, `PASSWORD(` or `IDENTIFIED BY` in a statement.
    /// False if there is none.
    fn sql(&mut self, name: Span) -> bool {
        let bytes = name.of(self.text);
        if !SQL.iter().any(|word| bytes.eq_ignore_ascii_case(word.as_bytes())) {
            return false;
        }
        let rest = self.blanks(self.argument.from(name.end));
        let begins = |word: &[u8]| {
            rest.of(self.text).get(..word.len()).is_some_and(|by| by.eq_ignore_ascii_case(word))
        };
        let (value, sure) = if begins(b"(") {
            (self.blanks(rest.skip(1)), true)
        } else if begins(b"by ") {
            (self.blanks(rest.skip(3)), true)
        } else if begins(b"for ") {
            match self.after_account(self.blanks(rest.skip(4))) {
                Some(value) => (value, true),
                None => return false,
            }
        } else {
            (rest, false)
        };
        // Prose has double quotes.
        let (escape, quote) = match value.of(self.text) {
            [b'\'', ..] => (0, b'\''),
            [b'"', ..] if sure => (0, b'"'),
            [b'\\', quote @ (b'\'' | b'"'), ..] if sure => (1, *quote),
            _ => return false,
        };
        if value.start == name.end {
            return false;
        }
        if escape == 0 && self.in_script(value.start) && self.open_quote(value.start) == Some(quote) {
            return false;
        }
        let secret = if escape > 0 {
            self.value_from(name, value.start)
        } else {
            Span::new(value.start + 1, shell::quote_end(self.text, value.skip(1), quote))
        };
        self.mask_value(secret, Kind::Any);
        true
    }

    /// What follows the account and `=`.
    fn after_account(&self, account: Span) -> Option<Span> {
        let near = Span::new(account.start, account.end.min(account.start + FAR));
        let mut at = near;
        loop {
            at = match at.of(self.text) {
                [] => return None,
                [b'=' | b';', ..] => break,
                [byte, ..] if byte.is_ascii_whitespace() => break,
                [quote @ (b'"' | b'\'' | b'`'), ..] => {
                    at.from(shell::quote_end(self.text, at.skip(1), *quote)).skip(1)
                }
                _ => at.skip(1),
            };
        }
        let sign = self.blanks(account.from(at.start));
        let sign = if sign.of(self.text).starts_with(b":=") { sign.skip(1) } else { sign };
        sign.of(self.text).starts_with(b"=").then(|| self.blanks(sign.skip(1)))
    }

    // === Headers ===

    /// Up to the end of the line, or of the quotes around the header; or of the word.
    fn line(&mut self, name: Span, at: usize, one_word: bool) -> Span {
        let before = self.before(name.start).filter(|byte| matches!(byte, b'"' | b'\''));
        let open = if self.in_script(at) { self.open_quote(at) } else { before };
        let bytes = self.argument.from(at).of(self.text);
        let ends = |index: &usize| match bytes[*index] {
            b'\r' | b'\n' => true,
            b' ' | b'\t' => one_word,
            b'\\' => {
                let next = bytes.get(index + 1).copied();
                matches!(next, Some(b'r' | b'n')) || open.is_some() && next == open
            }
            byte => Some(byte) == open,
        };
        let length = (0..bytes.len()).find(ends).unwrap_or(bytes.len());
        Span::new(at, at + length)
    }

    /// Masks what is after the scheme. False if the name is not that of a header here.
    fn authorization(&mut self, name: Span, flag: bool) -> bool {
        let at = match self.field(name) {
            Field::Equals(at) | Field::Colon(at, true) => at,
            Field::Colon(at, false) => self.blanks(self.argument.from(at)).start,
            Field::End if flag && name.start == self.argument.start => {
                let start = self.argument.end + 1;
                if start >= self.text.len() || self.is_option(start) {
                    return false;
                }
                let (secret, _) = self.after_scheme(argument_from(self.text, start));
                self.mask_value(secret, Kind::Any);
                return true;
            }
            _ => return false,
        };
        let rest = self.argument.from(at);
        let quoted = match rest.of(self.text) {
            [b'\\', b'"' | b'\'', ..] => true,
            [quote @ (b'"' | b'\''), ..] => !self.in_script(at) || self.open_quote(at) != Some(*quote),
            _ => false,
        };
        let secret = if quoted {
            let value = self.value_from(name, at);
            self.after_scheme(value).0
        } else {
            let (secret, one_word) = self.after_scheme(rest);
            self.line(name, secret.start, one_word && !secret.of(self.text).starts_with(b"$("))
        };
        self.mask_value(secret, Kind::Any);
        true
    }

    /// What is after the scheme of an `Authorization` header, if it has one, and whether that is one word.
    fn after_scheme(&self, line: Span) -> (Span, bool) {
        /// Schemes are shorter.
        const LONGEST: usize = 24;
        let bytes = line.of(self.text);
        let letters = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
        let scheme = bytes.iter().take(LONGEST).take_while(letters).count();
        let one_word = SCHEMES.iter().any(|known| bytes[..scheme].eq_ignore_ascii_case(known.as_bytes()));
        match bytes.get(scheme) {
            Some(b' ') if scheme > 0 => (self.blanks(line.skip(scheme)), one_word),
            None if one_word => (line.skip(scheme), true),
            _ => (line, false),
        }
    }

    /// `Bearer token` in running text.
    fn bearer(&mut self, end: usize) -> bool {
        let token = self.argument.from(end);
        let [b' ', rest @ ..] = token.of(self.text) else { return false };
        let fits = |byte: &&u8| names::is_name_byte(**byte) || matches!(byte, b'~' | b'+' | b'/' | b'=');
        let length = rest.iter().take_while(fits).count();
        if length < SHORTEST_BEARER || !rest[..length].iter().any(u8::is_ascii_digit) {
            return false;
        }
        self.mask_value(Span::new(end + 1, end + 1 + length), Kind::Any);
        true
    }
}

/// The argument that starts there.
fn argument_from(text: &[u8], start: usize) -> Span {
    let rest = Span::new(start, text.len());
    let length = rest.of(text).iter().position(|&byte| byte == 0);
    length.map_or(rest, |length| Span::new(start, start + length))
}

/// Where the user information ends that has bytes which may not be in an authority: a name and a colon, and
/// no port after it.
fn at_sign_further_on(bytes: &[u8], authority: usize) -> Option<usize> {
    let near = &bytes[..bytes.len().min(FAR)];
    if authority >= near.len() || is_host(&bytes[..authority]) {
        return None;
    }
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
    let near = &near[..near.iter().position(ends).unwrap_or(near.len())];
    let near = &near[..near.windows(3).position(|bytes| bytes == ADDRESS.as_bytes()).unwrap_or(near.len())];
    near.iter().rposition(|&byte| byte == b'@')
}

/// A host, with or without a port, rather than a user and a password.
fn is_host(authority: &[u8]) -> bool {
    let mut parts = authority.splitn(2, |&byte| byte == b':');
    let _host = parts.next();
    match parts.next() {
        None => true,
        Some(port) => {
            authority.starts_with(b"[")
                || port.iter().all(|byte| byte.is_ascii_digit() || *byte == b'*')
                || port.iter().any(|byte| matches!(byte, b'$' | b'{' | b':' | b','))
        }
    }
}

/// Looks like a token: letters and digits that no one would take for a name.
fn is_random(name: &[u8]) -> bool {
    /// Names of users that are longer, and have digits among their letters, are rare.
    const LONG: usize = 16;
    let word = name.split(|&byte| matches!(byte, b'_' | b'-' | b'.')).max_by_key(|word| word.len());
    word.is_some_and(|word| {
        word.len() >= LONG
            && word.iter().all(u8::is_ascii_alphanumeric)
            && word.iter().any(u8::is_ascii_digit)
            && word.iter().any(u8::is_ascii_alphabetic)
    })
}

/// The host is one where code is kept.
fn is_forge(host: &[u8]) -> bool {
    FORGES
        .iter()
        .any(|forge| host.windows(forge.len()).any(|part| part.eq_ignore_ascii_case(forge.as_bytes())))
}

/// A user of a forge that is a token: long with a digit, or in letters that change their case as by chance.
/// Not the address of a user (`bob%40example.com`).
fn is_user_token(name: &[u8]) -> bool {
    /// Of a name that has no digit.
    const LONG: usize = 16;
    let letters = name.iter().all(u8::is_ascii_alphabetic);
    let changes = name.windows(2).filter(|pair| pair[0].is_ascii_uppercase() != pair[1].is_ascii_uppercase());
    name.len() >= SHORTEST_USER_TOKEN
        && !name.windows(3).any(|bytes| bytes == b"%40")
        && (name.iter().any(u8::is_ascii_digit)
            || letters && name.len() >= LONG && changes.count() * 5 >= name.len() * 2)
}

/// `name=` comes first.
fn is_field(bytes: &[u8]) -> bool {
    let name = bytes.iter().take_while(|&&byte| names::is_name_byte(byte)).count();
    name > 0 && bytes.get(name) == Some(&b'=')
}

/// The name of a header, which may have a first part: `Proxy-Authorization`, `Set-Cookie`.
fn is_header(name: &[u8], header: &str) -> bool {
    let name = name.iter().position(|&byte| byte != b'-').map_or(name, |dashes| &name[dashes..]);
    ends_with_word(name, header)
}

fn ends_with_word(text: &[u8], word: &str) -> bool {
    let Some(before) = text.len().checked_sub(word.len()) else { return false };
    text[before..].eq_ignore_ascii_case(word.as_bytes())
        && text[..before].last().is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'+')
}
