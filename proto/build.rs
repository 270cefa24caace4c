//! Generates all that is made from the .proto files, without a system `protoc`: the messages, their JSON form,
//! its JSON Schema and the documentation.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use protox::prost_reflect::DescriptorPool;

use crate::model::{Model, OPTIONS, vocabulary_of_options};

#[path = "build/json.rs"]
mod json;
#[path = "build/markdown.rs"]
mod markdown;
#[path = "build/model.rs"]
mod model;
#[path = "build/schema.rs"]
mod schema;

/// Schemas that have a JSON form, one row each: package, and the files it is made of.
const PACKAGES: &[(&str, &[&str])] = &[
    ("nightjar.v1", &["nightjar/v1/event.proto", "nightjar/v1/status.proto"]),
    // What the rules of the JSON form allow but no event uses yet; included by unit tests only.
    ("nightjar.rules", &["tests/rules.proto"]),
];

/// Messages that have a JSON Schema, one row each: package, message, name of the file, ID of the schema.
const SCHEMAS: &[(&str, &str, &str, &str)] = &[
    ("nightjar.v1", "Event", "event.schema.json", "urn:nightjar:v1:event"),
    ("nightjar.v1", "Status", "status.schema.json", "urn:nightjar:v1:status"),
    ("nightjar.rules", "Rules", "rules.schema.json", "urn:nightjar:rules"),
];

/// Services and their messages, which only programs speak: they have no JSON form, even those of a package that has
/// one.
const SERVICES: &[&str] = &[
    "nightjar/agent/v1/agent.proto",
    "nightjar/backend/v1/backend.proto",
    "nightjar/v1/ingest.proto",
    "nightjar/v1/control.proto",
];

/// Messages whose bytes are handed on as they are, without a copy.
const SHARED_BYTES: &[&str] = &[
    ".nightjar.agent.v1.TailResponse",
    ".nightjar.backend.v1.EventsResponse",
    ".nightjar.backend.v1.TailResponse",
    ".nightjar.v1.Batch",
    ".nightjar.v1.TailEvents",
];

/// An event of each kind as a host has them, for the documentation. Written by tests/golden.rs.
const EXAMPLES: &str = "tests/golden/typical";

fn main() -> Result<(), Box<dyn Error>> {
    for watched in ["build.rs", "build", "nightjar", "tests/rules.proto", EXAMPLES] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; this program is for cargo to run")?;
    let out_dir = PathBuf::from(out_dir);

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(PACKAGES.iter().flat_map(|(_, files)| *files))?;
    let pool = compiler.descriptor_pool();
    compiler.open_files(SERVICES)?;

    // Options are for this program alone.
    let mut files = compiler.file_descriptor_set();
    files.file.retain(|file| file.package() != OPTIONS);
    let configure = tonic_prost_build::configure().build_transport(false);
    SHARED_BYTES.iter().fold(configure, tonic_prost_build::Builder::bytes).compile_fds(files)?;

    for (package, _) in PACKAGES {
        let code = json::serialize_impls(&pool, package)?;
        fs::write(out_dir.join(format!("{package}.json.rs")), code)?;
    }
    for (package, message, file, id) in SCHEMAS {
        let model = Model::read(&pool, package)?;
        fs::write(out_dir.join(file), schema::schema(&model, message, id)?)?;
    }
    document(&pool, &out_dir)
}

/// Writes what is for people to read, after checking that nothing is missing from it.
fn document(pool: &DescriptorPool, out_dir: &Path) -> Result<(), Box<dyn Error>> {
    let model = Model::read(pool, "nightjar.v1")?;
    model.check_options("Event")?;
    model.check_comments("Event")?;
    model.check_comments("Status")?;

    let vocabularies =
        [("Source", "Where values come from"), ("Trust", "What can be believed"), ("Unit", "Units")];
    let vocabularies = vocabularies.map(|(name, heading)| {
        let vocabulary = vocabulary_of_options(pool, name);
        vocabulary.map(|vocabulary| (heading, vocabulary)).ok_or_else(|| format!("{OPTIONS} has no {name}"))
    });
    let vocabularies = vocabularies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let page = markdown::events(&model, "Event", &vocabularies, |kind| {
        let path = format!("{EXAMPLES}/{kind}.json");
        fs::read_to_string(&path).map_err(|error| {
            format!(
                "{path}: {error}; add an event of this kind to tests/samples/typical.rs, make an empty file, and \
                 have it filled by NIGHTJAR_WRITE_GOLDEN=1 cargo test -p nightjar-proto --test golden"
            )
        })
    })?;
    fs::write(out_dir.join("events.md"), page)?;

    let mut kinds = String::from("&[\n");
    for (_, kind) in model.kinds("Event") {
        writeln!(
            kinds,
            "    Kind {{ name: {:?}, by_default: {}, description: {:?} }},",
            kind.name, kind.by_default, kind.text
        )?;
    }
    fs::write(out_dir.join("kinds.rs"), kinds + "]")?;
    Ok(())
}
