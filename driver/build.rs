//! Compiles what is in `proto/` with protox, so that a build needs no `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let files = protox::compile(["csi.proto", "pluginregistration.proto"], ["../proto"])?;

    // prost's derived `Debug` prints every field, secrets too. The messages that carry secrets (the specification
    // marks the field `csi_secret`, and always names it `secrets`) get no `Debug` at all: printing one by accident
    // does not compile.
    let secret_bearing: Vec<String> = files
        .file
        .iter()
        .filter(|file| file.package() == "csi.v1")
        .flat_map(|file| &file.message_type)
        .filter(|message| message.field.iter().any(|field| field.name() == "secrets"))
        .map(|message| format!(".csi.v1.{}", message.name()))
        .collect();

    let mut config = prost_build::Config::new();
    config.skip_debug(&secret_bearing);
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Whatever a service does not define answers UNIMPLEMENTED, as the specification wants it.
        .generate_default_stubs(true)
        .compile_fds_with_config(files, config)?;
    Ok(())
}
