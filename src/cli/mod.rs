//! The command line: one file per verb (`docs/cli.md`).

/// Runs the verb that the arguments name and returns its exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
