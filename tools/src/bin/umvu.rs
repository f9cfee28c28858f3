//! Starts a process in a view. All of it is in `umvu_tools::launch`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::launch::run)
}
