//! The `gds` command.

fn main() -> std::process::ExitCode {
    gds_rs::cli::main()
}
