//! A schema that the rules of the JSON form do not cover fails the build, with a message that names the field.

use protox::{file::File, prost_reflect::DescriptorPool};

#[path = "../build/json.rs"]
mod json;

#[test]
fn what_the_rules_have_no_form_for_is_refused_by_name() {
    for (declaration, complaint) in [
        ("message M { bytes raw = 1; }", "test.M.raw: bytes has no JSON form"),
        ("message M { repeated double load = 1; }", "test.M.load: a floating-point number has no JSON form"),
        ("message M { map<string, uint32> counts = 1; }", "test.M.counts: a map has no JSON form"),
        ("enum E { E_NONE = 0; }", "test.E_NONE: value 0 must be E_UNSPECIFIED"),
        ("enum E { E_UNSPECIFIED = 0; OTHER = 1; }", "test.OTHER: the name must begin with E_"),
    ] {
        let source = format!("syntax = \"proto3\"; package test; {declaration}");
        let file = File::from_source("test.proto", &source).unwrap();
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).unwrap();
        let error = json::serialize_impls(&pool, "test").unwrap_err();
        assert!(error.starts_with(complaint), "{error}");
    }
}
