fn main() -> std::process::ExitCode {
    stunetd::sys::memory::keep_freed_memory();
    stunetd::cli::main()
}
