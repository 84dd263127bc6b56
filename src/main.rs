fn main() -> std::process::ExitCode {
    stunetd::cli::main()
}
