fn main() -> std::process::ExitCode {
    stunetd::sys::memory::keep_freed_memory();
    // A decode worker is a program of its own: it sets up nothing of the daemon.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "decode-worker") {
        return stunetd::volume::decode::worker_main();
    }
    stunetd::cli::main()
}
