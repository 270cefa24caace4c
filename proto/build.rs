//! Generates the messages and their JSON form from the .proto files, without a system `protoc`.

use std::{env, error::Error, fs, path::Path};

#[path = "build/json.rs"]
mod json;

/// Schemas that have a JSON form, one row each: package, and the files it is made of.
const PACKAGES: &[(&str, &[&str])] = &[
    ("nightjar.v1", &["nightjar/v1/event.proto", "nightjar/v1/status.proto"]),
    // What the rules of the JSON form allow but no event uses yet; included by unit tests only.
    ("nightjar.rules", &["tests/rules.proto"]),
];

/// Services, which only programs speak.
const SERVICES: &[&str] = &["nightjar/agent/v1/agent.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for watched in ["build.rs", "build", "nightjar", "tests/rules.proto"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; this program is for cargo to run")?;

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(PACKAGES.iter().flat_map(|(_, files)| *files).chain(SERVICES))?;

    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(compiler.file_descriptor_set())?;
    for (package, _) in PACKAGES {
        let code = json::serialize_impls(&compiler.descriptor_pool(), package)?;
        fs::write(Path::new(&out_dir).join(format!("{package}.json.rs")), code)?;
    }
    Ok(())
}
