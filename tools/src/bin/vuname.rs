//! Tells the names of system and view. All of it is in `umvu_tools::uname`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::uname::run)
}
