//! Runs a shell as another user of the view. All of it is in `umvu_tools::su`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::su::run)
}
