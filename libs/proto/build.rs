//! Compiles proto/ with a Rust compiler of protobuf, so that no machine needs protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let ours = root.join("proto");
    let google = root.join(".setup/googleapis");
    if !google.join("google/api/field_behavior.proto").exists() {
        return Err("Google's API protos are missing from .setup/googleapis; run `make setup`".into());
    }
    println!("cargo:rerun-if-changed={}", ours.display());

    let mut files = Vec::new();
    for package in std::fs::read_dir(ours.join("tidemill"))? {
        for file in std::fs::read_dir(package?.path().join("v1"))? {
            files.push(file?.path());
        }
    }
    files.sort();
    // Error details travel as Any: reflection and JSON need their descriptors too.
    files.push(google.join("google/rpc/error_details.proto"));

    let mut compiler = protox::Compiler::new([&ours, &google])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    // Encoded by protox, which keeps the options (field_behavior) that prost's own types would drop.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let set = compiler.file_descriptor_set();

    // Ordered maps: equal messages must encode to equal bytes, because specs are identified by their digest.
    let mut config = prost_build::Config::new();
    config.enable_type_names().btree_map(["."]).boxed(".tidemill.inference.v1.GenerateStreamResponse.receipt");
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds_with_config(set, config)?;
    Ok(())
}
