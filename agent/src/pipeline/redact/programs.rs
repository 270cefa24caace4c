//! Which arguments of well-known programs are secrets although no name says so, and which programs run
//! others. Options with a telling name (`--password`) are not in here: see [`super::names`].

use Takes::{After, AfterLast, Command, Cookie, Logon, Nothing, Proxy, Said, Script, Source, Unnamed, Whole};

/// What of an argument is the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// All of it.
    Whole,
    /// All of it, unless it is `name=value`.
    Unnamed,
    /// What is after the first such byte: `user:password`.
    After(u8),
    /// What is after the last such byte: `algorithm:name:key`.
    AfterLast(u8),
    /// `user/password@host`.
    Logon,
    /// `user:password@host`, where an address may be without a scheme.
    Proxy,
    /// `pass:password`, and not `file:path`, `env:NAME`, `stdin`.
    Source,
    /// All of it, where it has `=`; else it names a file.
    Cookie,
    /// Nothing, although the name of the option says so.
    Nothing,
    /// Nothing, but the next program of a pipe reads it.
    Said,
    /// It is text that a shell reads.
    Script,
    /// It is a program, with its arguments after it.
    Command,
}

/// Where the argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Next after an option, or joined to it: `-p X`, `-pX`, `--pass X`, `--pass=X`.
    Option(&'static str),
    /// Joined only: `-pX`. The option alone takes nothing.
    Joined(&'static str),
    /// Next after an option that takes no value: it is something else.
    Switch(&'static str),
    /// The operand of that number, from 0 on.
    Operand(u8),
    /// All operands.
    Operands,
    /// The operand after one that is the name of a secret.
    Named,
    /// After `--`.
    Dashes,
    /// What a shell pipes into the program, as `echo` writes it.
    Input,
}

/// A row of a program.
#[derive(Debug)]
pub struct Rule {
    pub place: Place,
    pub takes: Takes,
    /// Operands that have to come before, in this order; `-x` for an option.
    pub after: &'static [&'static str],
}

/// How a program reads its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Letters may be joined to one another: these take a value.
    Letters(&'static str),
    /// Words after one dash: these take a value.
    Words(&'static [&'static str]),
    /// All take a value, short of these.
    AllBut(&'static [&'static str]),
}

/// A program, or several that are called alike.
#[derive(Debug)]
pub struct Program {
    pub names: &'static [&'static str],
    pub syntax: Syntax,
    /// Long options that take a value.
    pub long: &'static [&'static str],
    pub rules: &'static [Rule],
}

/// No program has more rows.
pub const MOST_RULES: usize = 16;

impl Rule {
    const fn new(place: Place, takes: Takes) -> Self {
        Self { place, takes, after: &[] }
    }

    /// Only after these operands.
    const fn after(self, after: &'static [&'static str]) -> Self {
        Self { after, ..self }
    }
}

const fn option(name: &'static str, takes: Takes) -> Rule {
    Rule::new(Place::Option(name), takes)
}

const fn joined(name: &'static str, takes: Takes) -> Rule {
    Rule::new(Place::Joined(name), takes)
}

const fn switch(name: &'static str) -> Rule {
    Rule::new(Place::Switch(name), Nothing)
}

const fn operand(number: u8, takes: Takes) -> Rule {
    Rule::new(Place::Operand(number), takes)
}

const fn operands(takes: Takes) -> Rule {
    Rule::new(Place::Operands, takes)
}

const NAMED: Rule = Rule::new(Place::Named, Whole);
const CONFIG: Rule = NAMED.after(&["config"]);
const INPUT: Rule = Rule::new(Place::Input, Whole);
const DASHES: Rule = Rule::new(Place::Dashes, Command);

const fn program(names: &'static [&'static str], letters: &'static str, rules: &'static [Rule]) -> Program {
    Program { names, syntax: Syntax::Letters(letters), long: &[], rules }
}

const fn worded(
    names: &'static [&'static str],
    valued: &'static [&'static str],
    rules: &'static [Rule],
) -> Program {
    Program { names, syntax: Syntax::Words(valued), long: &[], rules }
}

impl Program {
    /// These long options take a value.
    const fn with(self, long: &'static [&'static str]) -> Self {
        Self { long, ..self }
    }
}

/// Options that make any program read a secret from its input.
pub const READS_SECRET: &[&str] = &[
    "--password-stdin",
    "--pass-stdin",
    "--token-stdin",
    "--with-token",
    "--passphrase-fd",
    "--passphrase-fd=0",
];

/// The first operand is a program.
const RUNS_FIRST: &[Rule] = &[operand(0, Command)];
/// The second is, after a time, a host or a directory.
const RUNS_SECOND: &[Rule] = &[operand(1, Command)];

const CONTAINER_SWITCHES: &[&str] = &[
    "-d",
    "-i",
    "-t",
    "-it",
    "-ti",
    "-dit",
    "-itd",
    "-di",
    "-id",
    "-td",
    "-dt",
    "-P",
    "-D",
    "--debug",
    "--detach",
    "--disable-content-trust",
    "--init",
    "--interactive",
    "--no-healthcheck",
    "--oom-kill-disable",
    "--privileged",
    "--publish-all",
    "--quiet",
    "-q",
    "--read-only",
    "--replace",
    "--rm",
    "--sig-proxy",
    "--tls",
    "--tlsverify",
    "--tty",
    "-T",
    "--no-deps",
    "--service-ports",
    "--use-aliases",
    "--password-stdin",
    "--no-cache",
    "--pull",
];

/// By what they are for.
pub const PROGRAMS: &[Program] = &[
    // Databases
    program(
        &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlshow",
            "mysqlcheck",
            "mysqlslap",
            "mysqlpump",
            "mysqlbinlog",
            "mysqlsh",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "mariadb-import",
            "mariadb-show",
            "mariadb-check",
            "mariadb-backup",
            "mycli",
            "xtrabackup",
        ],
        "uhPDSe",
        &[joined("-p", Whole), switch("--password"), operand(0, Whole).after(&["password"])],
    )
    .with(&["--user", "--host", "--port"]),
    program(
        &[
            "psql",
            "pg_dump",
            "pg_dumpall",
            "pg_restore",
            "pg_basebackup",
            "createdb",
            "dropdb",
            "createuser",
            "pgcli",
        ],
        "hpUdcfnt",
        &[switch("--password")],
    ),
    program(
        &[
            "mongo",
            "mongosh",
            "mongodump",
            "mongorestore",
            "mongoexport",
            "mongoimport",
            "mongostat",
            "mongotop",
            "mongofiles",
        ],
        "uhdco",
        &[option("-p", Whole)],
    ),
    program(
        &["redis-cli", "valkey-cli", "keydb-cli"],
        "hpsunridtx",
        &[
            option("-a", Whole),
            operands(Whole).after(&["auth"]),
            operand(0, Whole).after(&["config", "set", "requirepass"]),
            operand(0, Whole).after(&["config", "set", "masterauth"]),
        ],
    ),
    program(&["sqlcmd", "bcp", "osql", "tsql"], "SUdQqiohHEN", &[option("-P", Whole)]),
    program(&["isql"], "", &[operand(2, Whole)]),
    worded(
        &["sqlplus", "sqlldr", "expdp", "impdp", "exp", "imp", "rman", "dgmgrl"],
        &["-L", "-M", "-R", "-C"],
        &[operand(0, Logon)],
    ),
    program(&["cqlsh"], "uekf", &[option("-p", Whole)]),
    program(&["etcdctl"], "", &[option("--user", After(b':'))]),
    program(&["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"], "hptmuiVAfkqMWLE", &[option("-P", Whole)]),
    program(
        &["rabbitmqctl"],
        "npqt",
        &[
            operand(1, Whole).after(&["add_user"]),
            operand(1, Whole).after(&["change_password"]),
            operand(1, Whole).after(&["authenticate_user"]),
        ],
    ),
    program(&["rabbitmqadmin"], "HPuVcNfdS", &[option("-p", Whole)]),
    // Web
    program(
        &["curl"],
        "AbcCdDeEFhHKmoPQrtTuUwxXyYz",
        &[
            option("-u", After(b':')),
            option("--user", After(b':')),
            option("-U", After(b':')),
            option("--proxy-user", After(b':')),
            option("-x", Proxy),
            option("--proxy", Proxy),
            option("--preproxy", Proxy),
            option("-b", Cookie),
            option("-E", After(b':')),
            option("--cert", After(b':')),
            option("--proxy-cert", After(b':')),
        ],
    ),
    program(&["wget"], "aeoOtTPQUDRABXIil", &[option("-u", After(b':')), option("--user", After(b':'))]),
    program(
        &["http", "https", "xh", "xhs"],
        "Apso",
        &[option("-a", After(b':')), option("--auth", After(b':'))],
    ),
    program(
        &["htpasswd"],
        "C",
        &[operand(2, Whole).after(&["-b"]), operand(1, Whole).after(&["-n"]), INPUT.after(&["-i"])],
    ),
    program(&["mosquitto_passwd"], "H", &[operand(2, Whole).after(&["-b"])]),
    program(&["lftp"], "pef", &[option("-u", After(b','))]),
    program(&["ncftp", "ncftpget", "ncftpput", "ncftpls"], "uPdrt", &[option("-p", Whole)]),
    worded(&["swaks"], &[], &[option("-ap", Whole)]),
    // Remote access
    program(&["sshpass"], "fdP", &[option("-p", Whole), operand(0, Command)]),
    worded(&["plink", "pscp", "psftp", "putty"], &["-P", "-l", "-i"], &[option("-pw", Whole)]),
    worded(&["xfreerdp", "xfreerdp3", "wlfreerdp", "sdl-freerdp"], &[], &[joined("/p:", Whole)]),
    program(&["rdesktop"], "udgaRr", &[option("-p", Whole)]),
    program(
        &["ipmitool"],
        "HUILfkEyAoCtbBTlNRSDze",
        &[
            option("-P", Whole),
            option("-k", Whole),
            option("-y", Whole),
            operand(1, Whole).after(&["user", "set", "password"]),
        ],
    ),
    program(
        &[
            "snmpget",
            "snmpgetnext",
            "snmpwalk",
            "snmpset",
            "snmpbulkget",
            "snmpbulkwalk",
            "snmptrap",
            "snmptable",
            "snmpstatus",
            "snmpdf",
            "snmpinform",
            "snmptranslate",
        ],
        "ulaxvrtnemMOIPCTELZ",
        &[option("-c", Whole), option("-A", Whole), option("-X", Whole)],
    ),
    program(&["evil-winrm", "nxc", "netexec", "crackmapexec"], "iuHPsedk", &[option("-p", Whole)]),
    program(&["radtest"], "t", &[operand(1, Whole), operand(4, Whole)]),
    // Directories and shares
    program(
        &[
            "ldapsearch",
            "ldapadd",
            "ldapmodify",
            "ldapdelete",
            "ldapwhoami",
            "ldapcompare",
            "ldapmodrdn",
            "ldapexop",
            "ldapvi",
        ],
        "abDdefhHlPsSTXyYzUROo",
        &[option("-w", Whole)],
    ),
    program(
        &["ldappasswd"],
        "bDdefhHlPSTXyYzUROo",
        &[option("-w", Whole), option("-s", Whole), option("-a", Whole)],
    ),
    program(&["kadmin", "kadmin.local"], "rpqcdts", &[option("-w", Whole)]),
    program(
        &["smbclient", "rpcclient", "smbget", "smbcacls", "smbtree", "winexe", "wmic"],
        "ALMTWIpsOnRmc",
        &[option("-U", After(b'%')), option("--user", After(b'%'))],
    ),
    program(
        &["net"],
        "ISwnsW",
        &[
            option("-U", After(b'%')),
            option("--user", After(b'%')),
            operand(1, Whole).after(&["user"]),
            operand(2, Whole).after(&["user", "add"]),
            operand(1, Whole).after(&["password"]),
        ],
    ),
    program(
        &["samba-tool"],
        "HU",
        &[
            option("-U", After(b'%')),
            operand(1, Whole).after(&["user", "create"]),
            operand(1, Whole).after(&["user", "add"]),
        ],
    ),
    program(&["dig", "nsupdate", "knsupdate", "delv"], "bcfikpqtxuv", &[option("-y", AfterLast(b':'))]),
    // Accounts and networks
    program(&["useradd", "usermod"], "bcdefgGkKlprRsuZ", &[option("-p", Whole)]),
    program(&["chpasswd"], "ceRs", &[Rule::new(Place::Input, After(b':'))]),
    program(&["passwd", "smbpasswd", "kinit", "cryptsetup"], "", &[INPUT]),
    program(&["mkpasswd"], "mSRP", &[operand(0, Whole)]),
    program(&["wpa_passphrase"], "", &[operand(1, Whole)]),
    program(&["nmcli"], "cefgmotw", &[NAMED]),
    program(&["wpa_cli"], "pigB", &[NAMED]),
    program(&["iwconfig"], "", &[operand(0, Whole).after(&["key"]), operand(0, Whole).after(&["enc"])]),
    // Archives and keys
    program(&["ssh-keygen"], "abCDEFfIJjKMmnNOPRrSstTVWwYZz", &[option("-N", Whole), option("-P", Whole)]),
    worded(
        &[
            "pdftotext",
            "pdftoppm",
            "pdftocairo",
            "pdftohtml",
            "pdftops",
            "pdfinfo",
            "pdffonts",
            "pdfimages",
            "pdfdetach",
        ],
        &["-f", "-l", "-r"],
        &[option("-upw", Whole), option("-opw", Whole)],
    ),
    program(&["zip", "zipcloak", "zipnote"], "bntx", &[option("-P", Whole)]),
    program(&["unzip", "zipinfo"], "d", &[option("-P", Whole)]),
    worded(&["7z", "7za", "7zr", "7zz"], &[], &[joined("-p", Whole)]),
    worded(&["rar", "unrar"], &[], &[joined("-hp", Whole), joined("-p", Whole)]),
    worded(
        &["openssl"],
        &["-salt", "-in", "-out", "-iv", "-S", "-md", "-iter", "-inkey", "-keyin", "-CA", "-CAkey"],
        &[
            option("-passin", Source),
            option("-passout", Source),
            option("-pass", Source),
            option("-password", Source),
            option("-k", Whole).after(&["enc"]),
            option("-K", Whole),
            option("-hmac", Whole),
            option("-macopt", After(b':')),
            option("-srppass", Source),
            operand(0, Whole).after(&["passwd"]),
        ],
    ),
    worded(&["keytool", "jarsigner"], &[], &[option("-new", Whole)]),
    worded(&["apksigner"], &[], &[option("--ks-pass", Source), option("--key-pass", Source)]),
    worded(
        &["pkcs11-tool", "pkcs15-tool", "softhsm2-util", "yubico-piv-tool"],
        &[],
        &[option("--pin", Whole), option("-p", Whole), option("--so-pin", Whole), option("--new-pin", Whole)],
    ),
    program(&["rclone"], "", &[operand(0, Whole).after(&["obscure"])]),
    // Clouds, containers, development
    Program {
        names: &["docker", "podman", "nerdctl", "buildah"],
        syntax: Syntax::AllBut(CONTAINER_SWITCHES),
        long: &[],
        rules: &[
            option("--secret", Nothing),
            option("-p", Whole).after(&["login"]),
            operand(1, Command).after(&["run"]),
            operand(1, Command).after(&["exec"]),
            INPUT.after(&["secret", "create"]),
        ],
    },
    program(
        &["docker-compose"],
        "f",
        &[operand(1, Command).after(&["exec"]), operand(1, Command).after(&["run"])],
    ),
    program(
        &["skopeo", "crane", "helm", "oras", "az", "regctl"],
        "untg",
        &[option("-p", Whole).after(&["login"]), option("--value", Whole).after(&["secret", "set"])],
    ),
    program(
        &["aws"],
        "",
        &[NAMED.after(&["configure", "set"]), option("--value", Whole).after(&["put-parameter"])],
    ),
    program(
        &["kubectl", "oc", "k3s", "crictl", "lxc", "incus", "pct"],
        "ncfluos",
        &[
            option("--from-literal", After(b'=')).after(&["create", "secret"]),
            option("-p", Whole).after(&["login"]),
            DASHES,
            operand(1, Command).after(&["exec"]),
        ],
    ),
    program(
        &["op", "vlt", "chamber", "doppler", "aws-vault", "teller", "infisical"],
        "pet",
        &[DASHES, operands(After(b'=')).after(&["secrets", "set"])],
    ),
    program(&["cf"], "aous", &[option("-p", Whole).after(&["login"]), operand(1, Whole).after(&["auth"])]),
    program(&["fly", "flyctl"], "act", &[operands(After(b'=')).after(&["secrets", "set"])]),
    program(
        &["gh", "glab"],
        "Renoar",
        &[
            option("-b", Whole).after(&["secret", "set"]),
            option("--body", Whole).after(&["secret", "set"]),
            INPUT.after(&["secret", "set"]),
        ],
    ),
    worded(
        &["vault", "bao"],
        &[],
        &[
            operand(0, Unnamed).after(&["login"]),
            operand(0, Whole).after(&["unseal"]),
            operands(After(b'=')).after(&["kv", "put"]),
            operands(After(b'=')).after(&["kv", "patch"]),
            operands(After(b'=')).after(&["write"]),
            operands(After(b'=')).after(&["login"]),
        ],
    ),
    program(
        &["mc", "mcli"],
        "C",
        &[operand(3, Whole).after(&["alias", "set"]), operand(3, Whole).after(&["config", "host", "add"])],
    ),
    program(&["bw"], "", &[operand(1, Whole).after(&["login"]), operand(0, Whole).after(&["unlock"])]),
    program(&["snyk"], "", &[operand(0, Whole).after(&["auth"])]),
    program(
        &["ngrok"],
        "",
        &[operand(0, Whole).after(&["authtoken"]), operand(0, Whole).after(&["add-authtoken"])],
    ),
    program(&["doctl"], "t", &[option("-t", Whole)]),
    program(&["cargo"], "", &[operand(0, Whole).after(&["login"])]),
    program(
        &["twine", "poetry"],
        "urc",
        &[option("-p", Whole).after(&["upload"]), option("-p", Whole).after(&["publish"]), CONFIG],
    ),
    program(&["git", "npm", "yarn", "pnpm", "composer", "pip", "gcloud"], "Cc", &[CONFIG]),
    program(&["ansible-vault"], "n", &[operand(0, Whole).after(&["encrypt_string"])]),
    // What runs programs
    program(
        &["sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "rbash"],
        "oO",
        &[operand(0, Script).after(&["-c"])],
    ),
    program(
        &["su"],
        "gGswT",
        &[option("-c", Script), option("--command", Script), option("--session-command", Script)],
    ),
    program(
        &["runuser"],
        "gGswTu",
        &[option("-c", Script), option("--command", Script), operand(0, Command).after(&["-u"])],
    ),
    program(&["script"], "IOTBEom", &[option("-c", Script), option("--command", Script)]),
    program(
        &["vagrant"],
        "",
        &[option("-c", Script).after(&["ssh"]), option("--command", Script).after(&["ssh"])],
    ),
    program(&["flock"], "wE", &[option("-c", Script), operand(1, Command)]).with(&["--timeout", "--wait"]),
    program(&["env"], "uC", &[option("-S", Script), operand(0, Command)]).with(&["--unset", "--chdir"]),
    program(&["echo", "printf"], "", &[operands(Said)]),
    program(
        &["sudo"],
        "ugpCrtTUDRhc",
        &[operand(0, Command), INPUT.after(&["-S"]), INPUT.after(&["--stdin"])],
    )
    .with(&["--user", "--group", "--prompt", "--chdir", "--host"]),
    program(&["doas"], "uCa", RUNS_FIRST),
    program(
        &[
            "nohup",
            "setsid",
            "command",
            "builtin",
            "eval",
            "busybox",
            "toybox",
            "then",
            "do",
            "else",
            "if",
            "elif",
            "while",
            "until",
            "!",
            "{",
            "unbuffer",
            "chronic",
            "torsocks",
            "proxychains",
            "proxychains4",
            "dumb-init",
            "tini",
            "catatonit",
            "caffeinate",
            "fakeroot",
        ],
        "gep",
        RUNS_FIRST,
    ),
    program(&["exec"], "a", RUNS_FIRST),
    program(&["time"], "fo", RUNS_FIRST),
    program(&["nice"], "n", RUNS_FIRST).with(&["--adjustment"]),
    program(&["ionice"], "cnpPu", RUNS_FIRST).with(&["--class", "--classdata"]),
    program(&["stdbuf"], "ioe", RUNS_FIRST),
    program(&["unshare"], "SGRw", RUNS_FIRST),
    program(&["nsenter"], "tSG", RUNS_FIRST).with(&["--target"]),
    program(&["strace", "ltrace"], "abeEIoOpPsSuUX", RUNS_FIRST),
    program(&["xargs"], "adEIlLnPs", RUNS_FIRST),
    program(&["parallel"], "ajN", RUNS_FIRST),
    program(&["watch"], "n", RUNS_FIRST).with(&["--interval"]),
    program(&["screen"], "cehpsStTX", RUNS_FIRST),
    program(&["systemd-run"], "pMHutEG", RUNS_FIRST).with(&[
        "--unit",
        "--property",
        "--description",
        "--slice",
    ]),
    program(&["timeout"], "ks", RUNS_SECOND).with(&["--signal", "--kill-after"]),
    program(&["chroot", "gosu", "su-exec", "faketime", "setpriv"], "", RUNS_SECOND),
    program(&["taskset", "chrt"], "", RUNS_SECOND),
    program(&["ssh", "autossh", "mosh"], "bcDEeFIiJLlmMOopQRSWw", RUNS_SECOND),
    program(&["ip"], "n", &[operand(1, Command).after(&["netns", "exec"])]),
    worded(
        &["find"],
        &["-name", "-path"],
        &[option("-exec", Command), option("-execdir", Command), option("-ok", Command)],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_program_has_one_entry_and_few_rows() {
        let mut names = BTreeSet::new();
        for program in PROGRAMS {
            assert!(program.rules.len() <= MOST_RULES, "{:?}", program.names);
            for name in program.names {
                assert!(names.insert(name), "{name} is there twice");
            }
        }
    }
}
