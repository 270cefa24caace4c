//! A schema that the rules of the JSON form do not cover, or that says too little of itself, fails the build, with a
//! message that names the field.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver},
    prost_reflect::DescriptorPool,
};

#[path = "../build/json.rs"]
mod json;
#[allow(dead_code, reason = "what is written from the model is written by the build alone")]
#[path = "../build/model.rs"]
mod model;

#[test]
fn what_the_rules_have_no_form_for_is_refused_by_name() {
    for (declaration, complaint) in [
        ("message M { bytes raw = 1; }", "test.M.raw: bytes has no JSON form"),
        ("message M { repeated double load = 1; }", "test.M.load: a floating-point number has no JSON form"),
        ("message M { map<string, uint32> counts = 1; }", "test.M.counts: a map has no JSON form"),
        ("enum E { E_NONE = 0; }", "test.E_NONE: value 0 must be E_UNSPECIFIED"),
        ("enum E { E_UNSPECIFIED = 0; OTHER = 1; }", "test.OTHER: the name must begin with E_"),
    ] {
        let error = json::serialize_impls(&pool(declaration), "test").unwrap_err();
        assert!(error.starts_with(complaint), "{error}");
    }
}

#[test]
fn a_field_that_says_too_little_of_itself_is_refused_by_name() {
    const GOOD: &str = "[(options.source) = AGENT, (options.trust) = DERIVED]";
    let body = |comment: &str, option: &str| {
        format!(
            "message M {{ oneof body {{ A a = 1 {option}; }} }}\n// {comment}\nmessage A {{ /* x */ bool b = 1 {GOOD}; }}"
        )
    };
    let twice = body("a.b: B.", r#"[(options.kind) = {name: "a.b"}, (options.kind) = {name: "a.b"}]"#);
    for (declaration, complaint) in [
        (
            "message M { /* x */ bool b = 1; }".to_owned(),
            "test.M.b: no option `source`; say where its value is taken from, as in `[(options.source) = KERNEL]`",
        ),
        (
            "message M { /* x */ bool b = 1 [(options.source) = UNSPECIFIED, (options.trust) = RACY]; }"
                .to_owned(),
            "test.M.b: no option `source`",
        ),
        (
            "message M { /* x */ bool b = 1 [(options.source) = AGENT]; }".to_owned(),
            "test.M.b: no option `trust`; say how far its value can be believed",
        ),
        (format!("message M {{ bool b = 1 {GOOD}; }}"), "test.M.b: no comment; write above it"),
        (
            "message M { N n = 1; } /* x */ message N { /* x */ string s = 1; }".to_owned(),
            "test.N.s: no option",
        ),
        (
            format!("message M {{ N n = 1; }} message N {{ /* x */ bool b = 1 {GOOD}; }}"),
            "test.M.n: no comment",
        ),
        (body("x", ""), "test.M.a: no option `kind`"),
        (
            body("a.c: C.", r#"[(options.kind) = {name: "a.b"}]"#),
            "test.M.a: the comment of test.A does not describe a.b; a paragraph has to begin with `a.b: `",
        ),
        (twice, "test.M.a: kind a.b has another body already"),
    ] {
        let error = check(&declaration).unwrap_err();
        assert!(error.starts_with(complaint), "{declaration}\n{error}");
    }
}

#[test]
fn a_field_that_says_enough_is_not_refused() {
    let declaration = r#"
        message M {
            oneof body { A a = 1 [(options.kind) = {name: "a.b"}]; }
            M again = 2;
        }
        // a.b: something happened.
        message A {
            // What it is.
            repeated uint32 b = 1 [(options.source) = KERNEL, (options.source) = PROCFS, (options.trust) = KERNEL];
        }
    "#;
    // But for `again`, whose message has no comment either.
    assert_eq!(
        check(declaration),
        Err("test.M.again: no comment; write above it what its value means, for the documentation".to_owned())
    );
    assert_eq!(check(&format!("// Whole.\n{}", declaration.trim_start())), Ok(()));
}

fn check(declaration: &str) -> Result<(), String> {
    let model = model::Model::read(&pool(declaration), "test")?;
    model.check_options("M")?;
    model.check_comments("M")
}

/// A file of these declarations, and what it imports.
fn pool(declaration: &str) -> DescriptorPool {
    struct Source(String);
    impl FileResolver for Source {
        fn open_file(&self, name: &str) -> Result<File, Error> {
            if name == "test.proto" {
                File::from_source(name, &self.0)
            } else {
                Err(Error::file_not_found(name))
            }
        }
    }

    let mut resolver = ChainFileResolver::new();
    // Its own name, so that `options` is found as it is from the package of events.
    resolver.add(Source(format!(
        "syntax = \"proto3\"; package test; import \"nightjar/v1/options.proto\";\n{}",
        declaration.replace("(options.", "(nightjar.v1.options.")
    )));
    resolver.add(IncludeFileResolver::new(env!("CARGO_MANIFEST_DIR").into()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true).open_file("test.proto").unwrap();
    compiler.descriptor_pool()
}
